"""Text from outside, on a terminal: every command shows it, and none lets it act."""

from __future__ import annotations

import ast
import asyncio
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

import dynein.cli
from dynein.admin import audit, redrive
from dynein.admin.restore import RestoreReport
from dynein.admin.tail import Arrived
from dynein.aws.bootstrap import Step
from dynein.cli import operations
from dynein.cli.main import app, main
from dynein.cli.output import line
from dynein.core.ledger import Counts, Row
from dynein.errors import UnknownQueue
from tests.unit.lines import not_shown

HOSTILE = (
    "a\x00\x07\x08\t\r\nb\x1b[2J\x1b]0;title\x07\x1b]8;;https://evil.example\x1b\\c\x7f\x85\x9b31m\u200b\u200e\u200f\u061c"
    "\u2028\u2029\u202a\u202e\u2066\u2069\ufeff\U000e0041\ud800[red]m[/red][link=https://evil.example]n[/link]"
)
SHORT = "a\x1b[2J\u202e[red]b[/red]"
"""Where only the beginning is shown."""
FAILS = UnknownQueue(HOSTILE, HOSTILE)


def answers(value: Any) -> Callable[..., Any]:
    async def operation(*_: Any, **__: Any) -> Any:
        return value

    return operation


def fails(*_: Any, **__: Any) -> Any:
    raise FAILS


async def tail(_: Any, queue: str, show: Callable[[Arrived], None], stopping: asyncio.Event, **__: Any) -> None:
    show(Arrived(queue, 1_000, SHORT, HOSTILE, SHORT, 900, 1))
    show(Arrived(queue, 1_000, HOSTILE, None, None, None, 1))
    stopping.set()


def respond(status: int) -> Callable[..., httpx.Response]:
    hostile = HOSTILE.replace("\ud800", "")  # with which it is no JSON
    body = {
        "token": hostile,
        "policy": hostile,
        "queue": hostile,
        "due_at": hostile,
        "due_at_ms": 1_000,
        "detail": hostile,
        "title": hostile,
        "fix": hostile,
        "moved_to": hostile,
        "code": "invalid-token",
    }

    def request(*_: Any, **__: Any) -> httpx.Response:
        return httpx.Response(status, content=json.dumps(body).encode())

    return request


def unreachable(*_: Any, **__: Any) -> httpx.Response:
    raise httpx.ConnectError(HOSTILE)


FINDING = audit.Finding(audit.STRANDED, 1, 1, 1_000, HOSTILE)
RESULTS: dict[str, tuple[str, Any]] = {
    "bootstrap": ("run_bootstrap", answers([Step(HOSTILE, "created", HOSTILE)])),
    "tail": ("run_tail", tail),
    "audit": ("run_audit", answers(audit.Report(1, 1, 1, {audit.STRANDED: 1, audit.UNDECODABLE: 0}, 0, [FINDING]))),
    "restore": ("run_restore", answers(RestoreReport(1, {HOSTILE: 1}, dry_run=False))),
    "redrive": ("run_redrive", answers(redrive.Report(1, 0, 0, {HOSTILE: 1}, "empty"))),
    "ledger": ("run_ledger", answers([Row(0, 3_600_000, True, Counts(accepted=2, delivered=1))])),
}
"""What a command of an operator prints comes from one function, which stands for the whole deployment here."""
ARGUMENTS: dict[str, list[str]] = {
    "submit": ["q", "b"],
    "get": ["t"],
    "cancel": ["t"],
    "move": ["t", "--delay", "1h"],
    "tail": ["q"],
    "restore": ["."],
}
REQUESTS = ("submit", "get", "cancel", "move")
NOTHING_FROM_OUTSIDE = {"serve", "metrics", "dev"}
"""The log and a reference page. `dev` prints by the same functions: see the last test."""


@pytest.fixture(autouse=True)
def log_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dynein.observability.logs.configure_logging", lambda *_, **__: None)


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.output


def check(output: str) -> None:
    assert set(not_shown(output)) <= {"\n"}


def test_every_command_is_covered() -> None:
    names = {command.name or command.callback.__name__ for command in app.registered_commands if command.callback}
    assert names == {*RESULTS, *REQUESTS, "settings"} | NOTHING_FROM_OUTSIDE


@pytest.mark.parametrize("command", RESULTS)
def test_what_a_deployment_holds_is_shown_and_does_nothing(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operations, *RESULTS[command])
    output = run(command, *ARGUMENTS.get(command, []))
    check(output)
    if command != "ledger":  # which shows figures only
        assert "\\u001b[2J" in output
        assert "\\u202e" in output
        assert "[red]" in output
    lines = output.splitlines()
    assert len(lines) == {"audit": 2, "restore": 2, "redrive": 2, "tail": 2, "bootstrap": 1, "ledger": 3}[command]


@pytest.mark.parametrize("command", RESULTS)
def test_json_has_it_whole_on_one_line(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operations, *RESULTS[command])
    output = run(command, *ARGUMENTS.get(command, []), "--json")
    check(output)
    objects = [json.loads(text) for text in output.splitlines()]
    assert (json.dumps(HOSTILE) in json.dumps(objects)) == (command != "ledger")


@pytest.mark.parametrize("arguments", [[], ["--json"]])
@pytest.mark.parametrize("respond", [respond(200), respond(422), unreachable], ids=["ok", "problem", "unreachable"])
@pytest.mark.parametrize("command", REQUESTS)
def test_what_a_server_responds_is_shown_and_does_nothing(
    command: str, respond: Callable[..., httpx.Response], arguments: Sequence[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(httpx.Client, "request", respond)
    output = run(command, *ARGUMENTS[command], *arguments)
    check(output)
    assert "\\u001b[2J" in output
    assert "[link=https://evil.example]" in output


def test_settings_are_shown_and_do_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DYNEIN_TABLE", SHORT)
    output = run("settings")
    check(output)
    assert "\\u001b[2J\\u202e[red]b[/red]" in output


@pytest.mark.parametrize("command", RESULTS)
def test_an_error_is_one_line(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(operations, RESULTS[command][0], fails)
    monkeypatch.setattr(sys, "argv", ["dynein", command, *ARGUMENTS.get(command, [])])
    with pytest.raises(SystemExit):
        main()
    error = capsys.readouterr().err
    check(error)
    assert error.count("\n") == 1
    assert "\\u001b[2J" in error


def test_on_a_terminal_only_our_styles_act() -> None:
    styled = line(("[bold]" + SHORT, "red"), HOSTILE)
    assert not not_shown(styled.plain)
    assert [(span.start, span.end, span.style) for span in styled.spans] == [(0, styled.plain.index("a\\u0000"), "red")]


def test_nothing_is_printed_in_another_way() -> None:
    """Every module of the command line prints by `dynein.cli.output`, `typer.echo` of what is ours, or not at all."""
    for path in Path(dynein.cli.__file__).parent.glob("*.py"):
        if path.name == "output.py":
            continue
        tree = ast.parse(path.read_text())
        imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert not imported & {"rich.console", "rich.text", "rich"}, path.name
        calls = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
        assert not calls & {"print", "sys.stdout.write", "sys.stderr.write", "err.print"}, path.name
