from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from dynein.errors import InvalidSettings
from dynein.settings import CONFIG_VARIABLE, Settings, load_settings, reference_markdown


@pytest.fixture(autouse=True)
def _no_outside_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.upper().startswith("DYNEIN_"):
            monkeypatch.delenv(name)


def test_the_defaults_agree_with_each_other() -> None:
    assert load_settings() == load_settings({})


def test_settings_are_frozen() -> None:
    settings = load_settings()
    with pytest.raises(ValidationError):
        settings.port = 1  # type: ignore[misc]  # what is tested


def test_arguments_win_over_the_environment_and_that_over_the_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "dynein.toml"
    file.write_text('table = "from-file"\nport = 1111\nhost = "0.0.0.0"\n')
    monkeypatch.setenv(CONFIG_VARIABLE, str(file))
    monkeypatch.setenv("DYNEIN_PORT", "2222")
    monkeypatch.setenv("DYNEIN_TABLE", "from-environment")
    settings = load_settings({"table": "from-argument"})
    assert (settings.table, settings.port, settings.host) == ("from-argument", 2222, "0.0.0.0")


def test_a_misspelt_variable_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DYNEIN_TICKS_S", "2")
    with pytest.raises(InvalidSettings, match="DYNEIN_TICKS_S: no such setting"):
        load_settings()


def test_a_misspelt_line_of_the_file_is_refused_by_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "dynein.toml"
    file.write_text("ticks_s = 2\n")
    monkeypatch.setenv(CONFIG_VARIABLE, str(file))
    with pytest.raises(InvalidSettings, match=r"ticks_s in .*: no such setting\. .*Did you mean tick_s\?"):
        load_settings()


def test_a_file_that_is_not_there_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CONFIG_VARIABLE, "/nowhere/dynein.toml")
    with pytest.raises(InvalidSettings, match=r"/nowhere/dynein\.toml"):
        load_settings()


def test_every_wrong_setting_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DYNEIN_PORT", "70000")
    monkeypatch.setenv("DYNEIN_TICK_S", "0")
    monkeypatch.setenv("DYNEIN_LOG_LEVEL", "LOUD")
    with pytest.raises(InvalidSettings) as raised:
        load_settings()
    sentences = str(raised.value).splitlines()
    assert [sentence.split("=")[0] for sentence in sentences] == ["DYNEIN_PORT", "DYNEIN_TICK_S", "DYNEIN_LOG_LEVEL"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"lease_ttl_s": 7.0, "member_ttl_s": 7.0}, "lease_ttl_s must exceed 2 * tick_s + call_timeout_s"),
        ({"tick_s": 2.5, "read_ahead_s": 7.5, "hold_window_s": 9.5}, "lease_ttl_s must exceed 2 * tick_s"),
        ({"member_ttl_s": 6.6}, "member_ttl_s must exceed 4/3 * call_timeout_s"),
        ({"call_timeout_s": 6.0}, "member_ttl_s must exceed 4/3 * call_timeout_s"),
        ({"member_ttl_s": 10.5}, "member_ttl_s must not exceed lease_ttl_s"),
        ({"lease_ttl_s": 7.5}, "member_ttl_s must not exceed lease_ttl_s"),
        ({"read_ahead_s": 1.9}, "read_ahead_s must be at least 3 * tick_s"),
        ({"hold_window_s": 4.9}, "hold_window_s must be at least read_ahead_s"),
        ({"visibility_timeout_s": 11}, "visibility_timeout_s must exceed hold_window_s"),
        ({"lease_ttl_s": 151.0}, "retire_grace_s must be at least 4 * lease_ttl_s"),
        ({"retire_grace_s": 599.0}, "retire_grace_s must be at least 2 * clock_skew_max_s"),
        ({"clock_skew_max_s": 301.0}, "retire_grace_s must be at least 2 * clock_skew_max_s"),
        ({"pack_bytes_max": 262145}, "pack_bytes_max must not exceed"),
        ({"ops_port": 8080}, "ops_port must differ from port"),
        ({"token_secrets": "0123456789abcdef,short"}, "every secret in token_secrets"),
    ],
)
def test_settings_that_contradict_each_other_are_refused_with_a_sentence(
    overrides: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidSettings) as raised:
        load_settings(overrides)
    (sentence,) = str(raised.value).splitlines()
    assert message in re.sub(r" \([0-9.]+\)", "", sentence), "the values aside"


def test_a_relation_s_sentence_has_both_values_and_the_fix() -> None:
    with pytest.raises(InvalidSettings) as raised:
        load_settings({"retire_grace_s": 300.0})
    assert str(raised.value) == (
        "retire_grace_s (300) must be at least 2 * clock_skew_max_s (600), or a job that a slow clock stores is never "
        "read: raise retire_grace_s, or keep the clocks closer"
    )


def test_secrets_are_split_and_never_shown() -> None:
    settings = load_settings({"token_secrets": " 0123456789abcdef , fedcba9876543210,"})
    assert settings.secrets == [b"0123456789abcdef", b"fedcba9876543210"]
    assert "0123456789abcdef" not in repr(settings)
    assert load_settings().secrets == []


def test_the_reference_lists_every_setting_with_its_meaning() -> None:
    page = reference_markdown()
    for name, field in Settings.model_fields.items():
        assert f"| `DYNEIN_{name.upper()}` |" in page
        assert field.description
        assert field.description in page


def test_what_kubernetes_injects_for_a_service_of_our_name_is_recognised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DYNEIN_PORT", "tcp://10.0.0.1:8080")
    monkeypatch.setenv("DYNEIN_PORT_8080_TCP_ADDR", "10.0.0.1")
    monkeypatch.setenv("DYNEIN_SERVICE_HOST", "10.0.0.1")
    with pytest.raises(InvalidSettings, match="enableServiceLinks: false"):
        load_settings()


@pytest.mark.parametrize(
    ("variable", "value", "sentence"),
    [
        ("TICK_S", "x", "DYNEIN_TICK_S=x: write a number"),
        ("TICK_S", "", "DYNEIN_TICK_S=: write a number"),
        ("TICK_S", "-1", "DYNEIN_TICK_S=-1: write a number greater than 0"),
        ("DRAIN_S", "inf", "DYNEIN_DRAIN_S=inf: write a finite number"),
        ("LINGER_S", "nan", "DYNEIN_LINGER_S=nan: write a finite number"),
        ("PORT", "8080.5", "DYNEIN_PORT=8080.5: write a whole number"),
        ("PORT", "99999", "DYNEIN_PORT=99999: write a number of 65535 or less"),
        ("PORT", "9" * 5000, ": write a smaller number"),
        ("RECEIVE_WAIT_S", "30", "DYNEIN_RECEIVE_WAIT_S=30: write a number of 20 or less"),
        ("LOG_LEVEL", "loud", "DYNEIN_LOG_LEVEL=loud: write one of 'DEBUG', 'INFO', 'WARNING' or 'ERROR'"),
        ("OTEL", "maybe", "DYNEIN_OTEL=maybe: write true or false"),
        ("WORKERS", "many", "DYNEIN_WORKERS=many: write a whole number"),
        ("ENDPOINT_URL", "localhost:4566", "DYNEIN_ENDPOINT_URL=localhost:4566: has no scheme; write http://localhost"),
        (
            "SQS_ENDPOINT_URL",
            "http://h:x",
            "DYNEIN_SQS_ENDPOINT_URL=http://h:x: has a host or port that cannot be read",
        ),
        ("TICKS", "1", "DYNEIN_TICKS: no such setting"),
    ],
)
def test_a_wrong_value_is_named_with_what_to_write(
    variable: str, value: str, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"DYNEIN_{variable}", value)
    with pytest.raises(InvalidSettings) as raised:
        load_settings()
    assert sentence in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_secret_is_never_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DYNEIN_TOKEN_SECRETS", "too-short")
    with pytest.raises(InvalidSettings) as raised:
        load_settings()
    assert "too-short" not in str(raised.value)
    monkeypatch.delenv("DYNEIN_TOKEN_SECRETS")
    file = tmp_path / "dynein.toml"
    file.write_text("token_secrets = 12345")
    monkeypatch.setenv(CONFIG_VARIABLE, str(file))
    with pytest.raises(InvalidSettings, match=f"DYNEIN_TOKEN_SECRETS in {file}: write text") as raised:
        load_settings()
    assert "12345" not in str(raised.value)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"tick_s == 1", "which is not TOML"),
        (b"\xff", "which is not UTF-8"),
        (b"tick_s = 'x'", "DYNEIN_TICK_S=x in "),
        (b"[api]\nport = 1", "api in "),
    ],
)
def test_a_settings_file_that_is_wrong_is_named(
    content: bytes, problem: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "dynein.toml"
    file.write_bytes(content)
    monkeypatch.setenv(CONFIG_VARIABLE, str(file))
    with pytest.raises(InvalidSettings) as raised:
        load_settings()
    assert problem in str(raised.value)
    assert str(file) in str(raised.value)


def test_a_settings_file_that_may_not_be_read_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "dynein.toml"
    file.touch()
    monkeypatch.setenv(CONFIG_VARIABLE, str(file))

    def forbidden(*_: object, **__: object) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_text", forbidden)  # root reads whatever its permissions
    with pytest.raises(InvalidSettings, match=r"cannot be read \(Permission denied\)"):
        load_settings()
