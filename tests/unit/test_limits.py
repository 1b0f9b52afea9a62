"""The page of limits and promises names tests that exist, and figures that are those of the code."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from dynein.api import checks
from dynein.api.drafting import PREPARED_VALID_MS
from dynein.api.due_time import DELAY_CHARS_MAX, MS_PER_DAY
from dynein.api.moments import TIME_CHARS_MAX
from dynein.core.delivered_message import user_attributes_max
from dynein.core.queues import DELAY_MAX_S, ENTRIES_MAX
from dynein.settings import Settings

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "reference" / "limits.md").read_text()
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py::\w+)`", PAGE)))
ROWS = re.findall(r"^\| (.*?) \| (.*?) \| `DYNEIN_(\w+)` \|", PAGE, re.MULTILINE)


@pytest.mark.parametrize("test", NAMED)
def test_a_test_that_the_page_names_exists(test: str) -> None:
    path, _, name = test.partition("::")
    functions = {
        node.name
        for node in ast.walk(ast.parse((ROOT / path).read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert name in functions


def test_every_row_of_every_table_names_one() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("|") and not line.startswith(("| ---", "|---"))]
    headed = [line for line in rows if "| held by |" not in line]
    assert len(headed) > 30
    assert [line for line in headed if "tests/" not in line] == [
        "| for standard queues, or of different groups | none: SQS promises none either | |"
    ]


@pytest.mark.parametrize("row", ROWS, ids=[row[2] for row in ROWS])
def test_a_limit_that_can_be_set_has_its_default(row: tuple[str, str, str]) -> None:
    _, limit, name = row
    default = Settings.model_fields[name.lower()].default
    if default is not None:
        assert re.match(rf"{default:,.0f}\b", limit), (limit, default)


@pytest.mark.parametrize(
    ("what", "limit"),
    [
        ("message attributes of yours", f"{user_attributes_max(named=False, base64=False)}; one less"),
        ("`name`", f"{checks.NAME_CHARS_MAX} characters"),
        ("`message_group_id`, `deduplication_id`", f"{checks.ID_CHARS_MAX} characters"),
        ("held by SQS (`SQS_DELAYED`)", f"{DELAY_MAX_S} s"),
        ("`delay` as text", f"{DELAY_CHARS_MAX} characters"),
        ("`run_at` as text", f"{TIME_CHARS_MAX} characters"),
        ("a prepared token creates its job", f"until {PREPARED_VALID_MS // MS_PER_DAY} day after"),
    ],
)
def test_a_limit_that_is_fixed_is_that_of_the_code(what: str, limit: str) -> None:
    assert f"| {what} | {limit}" in PAGE


def test_one_call_has_up_to_ten_jobs() -> None:
    assert ENTRIES_MAX == 10
    assert "one call, up to ten jobs" in PAGE
