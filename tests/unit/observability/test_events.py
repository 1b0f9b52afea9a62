from __future__ import annotations

import ast
import importlib
import logging
import pkgutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import dynein
from dynein.errors import Unavailable
from dynein.observability import events
from dynein.observability.events.delivery import JOB_DELIVERED
from dynein.observability.events.event import CATALOGUE, FIELDS, Event
from dynein.observability.events.process import PASS_FAILED
from dynein.observability.events.reference import reference_markdown
from dynein.observability.events.scheduler import LEASE_LOST

PACKAGE = Path(dynein.__file__).parent
MODULES = [
    importlib.import_module(f"{events.__name__}.{module.name}")
    for module in pkgutil.iter_modules(events.__path__)
    if module.name != "__main__"
]
EVENTS = {name: value for module in MODULES for name, value in vars(module).items() if isinstance(value, Event)}


def sources() -> Iterator[tuple[Path, ast.Module]]:
    for path in PACKAGE.rglob("*.py"):
        if path.parent.name != "events":
            yield path, ast.parse(path.read_text())


def test_every_call_names_only_fields_that_its_event_declares() -> None:
    checked = 0
    for path, tree in sources():
        for call in ast.walk(tree):
            if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr == "log"):
                continue
            targets = ast.walk(call.func.value)
            for event in [EVENTS[node.id] for node in targets if isinstance(node, ast.Name) and node.id in EVENTS]:
                given = {keyword.arg for keyword in call.keywords} | ({"error"} if call.args else set())
                assert given <= set(event.fields), f"{path}:{call.lineno}"
                assert "role" not in given or event.role is None, f"{path}:{call.lineno}: the event has its role"
                checked += 1
    assert checked >= len(EVENTS) - 3, "those of `message_processor` are passed on"


def test_every_event_is_logged_somewhere() -> None:
    named = {node.id for _, tree in sources() for node in ast.walk(tree) if isinstance(node, ast.Name)}
    assert EVENTS.keys() <= named


def test_every_field_is_used_and_every_line_about_a_job_has_its_token() -> None:
    assert {field for event in CATALOGUE.values() for field in event.fields} == FIELDS.keys()
    for event in CATALOGUE.values():
        assert event.fields.count("role") <= 1
        if event.name.startswith("job."):
            assert "token" in event.fields, event.name


def test_no_module_logs_past_the_catalogue() -> None:
    for path, tree in sources():
        names = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        assert path.name == "logs.py" or "getLogger" not in names, path


def test_the_reference_page_is_up_to_date() -> None:
    page = (PACKAGE.parent / "docs/reference/logs.md").read_text()
    assert page == reference_markdown(), "make reference"
    assert all(f"| `{name}` |" in page for name in CATALOGUE)


def test_an_event_becomes_a_line_with_its_fields(caplog: pytest.LogCaptureFixture) -> None:
    LEASE_LOST.log(shard=3, fence=None)
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("dynein.lease.lost", "WARNING")
    assert (
        record.getMessage()
        == "this process lost the lease of a shard: another dispatcher owns it role=dispatcher shard=3"
    )


def test_only_an_unexpected_error_is_logged_with_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    PASS_FAILED.log(Unavailable("no answer"), what="layout")
    PASS_FAILED.log(RuntimeError(), what="layout")
    assert [bool(record.exc_info) for record in caplog.records] == [False, True]
    assert [record.getMessage().split()[-1] for record in caplog.records] == ['answer"', "error=RuntimeError"]


def test_levels_can_be_set_for_one_family_of_events() -> None:
    assert not JOB_DELIVERED.enabled
    family = logging.getLogger("dynein.job")
    family.setLevel(logging.DEBUG)
    try:
        assert JOB_DELIVERED.enabled
    finally:
        family.setLevel(logging.NOTSET)


def test_a_field_that_is_not_declared_is_a_bug_of_ours() -> None:
    with pytest.raises(AssertionError, match="colour"):
        LEASE_LOST.log(colour="red")
