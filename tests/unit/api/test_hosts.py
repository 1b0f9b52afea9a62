"""Under which names the API may be addressed."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from dynein.api.hosts import AllowedHosts, is_loopback_only
from dynein.api.problems import Misdirected
from dynein.settings import Settings
from tests.unit.api.setting import Api

LOOPBACK = ["localhost", "LOCALHOST:8080", "app.localhost", "localhost.", "127.0.0.1", "127.0.0.1:80", "127.1.2.3"]
LOOPBACK += ["[::1]", "[::1]:8080"]
FOREIGN = ["evil.example", "evil.example:8080", "localhost.evil.example", "127.0.0.1.evil.example", "notlocalhost"]
FOREIGN += [
    "localhost@evil.example",
    "evil.example#localhost",
    "",
    ":8080",
    "[",
    "[]:1",
    "\u00e9",
    "localhost evil.example",
]
ADDRESSES = ["10.0.0.7:8080", "0.0.0.0:8080", "192.0.2.1", "[2001:db8::1]:8080"]


def allows(hosts: AllowedHosts, *given: str) -> bool:
    scope: dict[str, Any] = {"headers": [(b"accept", b"*/*"), *((b"host", value.encode("latin-1")) for value in given)]}
    try:
        hosts.check(scope)
    except Misdirected:
        return False
    return True


@pytest.mark.parametrize("listening_on", ["127.0.0.1", "localhost", "::1", "127.0.0.2"])
def test_on_loopback_only_names_of_loopback(listening_on: str) -> None:
    hosts = AllowedHosts(listening_on)
    for _ in range(2):
        assert [name for name in LOOPBACK if not allows(hosts, name)] == []
        assert [name for name in FOREIGN + ADDRESSES if allows(hosts, name)] == []
    assert not allows(hosts, "localhost", "evil.example")
    assert not allows(hosts, "evil.example", "localhost")
    assert allows(hosts), "HTTP/1.0"


def test_on_loopback_with_names_of_its_own() -> None:
    hosts = AllowedHosts("127.0.0.1", ["Dynein.Example", "192.0.2.1"])
    assert allows(hosts, "dynein.example:443")
    assert allows(hosts, "192.0.2.1")
    assert [name for name in LOOPBACK if not allows(hosts, name)] == []
    assert [name for name in FOREIGN if allows(hosts, name)] == []


def test_elsewhere_any_name_unless_some_are_listed() -> None:
    assert all(allows(AllowedHosts("0.0.0.0"), name) for name in LOOPBACK + FOREIGN + ADDRESSES)
    listed = AllowedHosts("0.0.0.0", ["dynein.example"])
    assert [name for name in ["dynein.example", *LOOPBACK, *ADDRESSES] if not allows(listed, name)] == []
    assert [name for name in FOREIGN if allows(listed, name)] == []


def test_any_name_where_the_settings_say_so() -> None:
    assert all(allows(AllowedHosts("127.0.0.1", ["*"]), name) for name in FOREIGN + ADDRESSES)


def test_what_was_checked_is_remembered_up_to_a_bound() -> None:
    hosts = AllowedHosts("127.0.0.1")
    for number in range(5_000):
        assert not allows(hosts, f"{number}.example")
    assert len(hosts._checked) <= 1_000
    assert allows(hosts, "localhost")


@pytest.mark.parametrize("wrong", ["http://dynein.example", "a b", "dynein.example:8080", "a/b"])
def test_a_setting_that_is_no_name_is_refused(wrong: str) -> None:
    with pytest.raises(ValidationError, match="allowed_hosts"):
        Settings(token_secrets=SecretStr("x" * 16), allowed_hosts=wrong)


def test_names_that_only_begin_like_loopback_are_not() -> None:
    assert not any(map(is_loopback_only, ["localhostx", "127.0.0.1x", "1270.0.1", "::2", "0.0.0.0"]))


@pytest.mark.parametrize(("method", "path"), [("POST", "/v1/jobs"), ("POST", "/v1/jobs/batch"), ("GET", "/healthz")])
async def test_a_page_that_has_its_own_name_lead_here_gets_nothing(method: str, path: str) -> None:
    api = Api()
    async with api.http() as http:
        body = b'{"queue":"demo","body":"x"}'
        response = await http.request(method, path, content=body, headers={"host": "evil.example"})
        assert (response.status_code, response.json()["code"]) == (421, "misdirected")
        assert "DYNEIN_ALLOWED_HOSTS" in response.json()["fix"]
        assert not [name for name in response.headers if name.startswith("access-control-")]
    assert api.queues.messages("demo") == []


async def test_there_is_no_cors() -> None:
    api = Api()
    async with api.http() as http:
        asked = {"origin": "https://evil.example", "access-control-request-method": "POST"}
        for response in (
            await http.options("/v1/jobs", headers=asked),
            await http.get("/healthz", headers={"origin": "https://evil.example"}),
        ):
            assert not [name for name in response.headers if name.startswith("access-control-")]
    assert (await http_options_status(api)) == 405


async def http_options_status(api: Api) -> int:
    async with api.http() as http:
        return (await http.options("/v1/jobs")).status_code
