"""Which proxy the environment puts before a URL."""

from __future__ import annotations

import pytest

from dynein.runtime.proxies import proxy_of, without_password

VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def test_by_scheme_and_by_all(monkeypatch: pytest.MonkeyPatch) -> None:
    assert proxy_of("http://example") is None
    monkeypatch.setenv("ALL_PROXY", "http://all:1")
    monkeypatch.setenv("https_proxy", "http://secure:1")
    assert str(proxy_of("http://example")) == "the proxy http://all:1 (from ALL_PROXY)"
    assert str(proxy_of("https://example")) == "the proxy http://secure:1 (from https_proxy)"
    assert proxy_of("http://example", all_proxy=False) is None


@pytest.mark.parametrize("url", ["http://localhost", "http://127.0.0.1:8080", "https://[::1]:1", "http://0.0.0.0:4566"])
def test_never_before_this_machine(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://proxy:3128")
    assert proxy_of(url) is None
    assert proxy_of("http://example") is not None


def test_not_before_what_the_environment_excepts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://proxy:3128")
    monkeypatch.setenv("NO_PROXY", ".internal,db")
    assert proxy_of("http://api.internal:8080") is None
    assert proxy_of("http://db") is None
    assert proxy_of("http://example") is not None


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://user:secret@proxy:3128/x", "http://***@proxy:3128/x"),
        ("user:secret@proxy:3128", "http://***@proxy:3128"),
        ("http://proxy:3128", "http://proxy:3128"),
        ("proxy:3128", "proxy:3128"),
    ],
)
def test_a_password_is_not_shown(url: str, shown: str) -> None:
    assert without_password(url) == shown
