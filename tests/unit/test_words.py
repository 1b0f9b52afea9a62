"""What users read uses the words of the field, and every path that it names exists.

Words are checked in prose only: fenced blocks, inline code, and links are left out, for names do not change.
"""

from __future__ import annotations

import importlib
import json
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import dynein
from dynein.api.openapi import openapi_document
from dynein.api.problems import CATALOGUE as PROBLEMS
from dynein.observability import events
from dynein.observability.events.event import CATALOGUE as EVENTS
from dynein.observability.events.event import FIELDS
from dynein.observability.telemetry import Telemetry
from dynein.settings import Settings

PACKAGE = Path(dynein.__file__).parent
ROOT = PACKAGE.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
ARCHITECTURE = ROOT / "docs" / "architecture.md"

INSTEAD = {
    r"in hand": "in memory, buffered",
    r"\w+'s? hands?": "held by, owned by, in the memory of",
    r"let(?:s|ting)? go": "evict, release",
    r"beat(?:s|en|ing)?": "heartbeat",
    r"restless(?:ly|ness)?": "poll_fast, poll",
    r"parcels?": "due job",
    r"last leg": "delivery",
    r"insist(?:s|ed|ing|ence)?": "retry",
    r"judg(?:e|es|ed|ing|ment|ments|ement|ements)": "check, checker, balance",
    r"verdicts?": "balance, result",
    r"weather": "fault intensity",
    r"saboteurs?": "fault injector",
    r"a person has to act": "operator action required",
    r"(?:nobody|no one|did not|not) (?:foresaw|foresee|foreseen)": "unexpected",
    r"ma(?:d|k)e(?:s)? good": "recovered",
    r"st(?:and|ands|anding|ood) still": "stale, stopped, unchanged",
    r"(?<!dead )(?<!dead-)letters(?!,? (?:and |or )?digits)": "dead letters",
    r"told": "logged, reported; configured",
    r"somebody": "another process, a caller, an operator: name it",
    r"(?:an|the|its|their|each|every|no|lost|whose|SQS's|AWS's) answers?": "response",
}
"""Words of ours that an engineer from outside would not understand, as patterns, and what to write instead."""

_PATTERNS = {re.compile(rf"\b(?:{words})\b", re.IGNORECASE): instead for words, instead in INSTEAD.items()}
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_SOURCE = re.compile(r"(?<![\w/.-])(?:dynein|tests|benchmarks|k8s|docs)/[\w/.-]*\.(?:py|md|yaml|json|toml)\b")


def prose(markdown: str) -> str:
    """Without code and the targets of links."""
    text = re.sub(r"^```.*?^```", "", markdown, flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"`[^`]*`", "`", text)
    return re.sub(r"\]\([^)]*\)", "]", text)


def found_in(text: str) -> list[str]:
    """Each word that should not be there, with some of the text around it and what to write instead."""
    flat = " ".join(prose(text).split())
    return [
        f"...{flat[max(0, match.start() - 40) : match.end() + 40]}... {match.group()!r}: {instead}"
        for pattern, instead in _PATTERNS.items()
        for match in pattern.finditer(flat)
    ]


def texts_of(value: Any) -> Iterator[str]:
    """The summaries, titles and descriptions of an OpenAPI document."""
    if isinstance(value, dict):
        for key, part in value.items():
            if key in {"summary", "title", "description"} and isinstance(part, str):
                yield part
            else:
                yield from texts_of(part)
    elif isinstance(value, list):
        for part in value:
            yield from texts_of(part)


@pytest.fixture(scope="module", autouse=True)
def _all_events() -> None:
    for module in pkgutil.iter_modules(events.__path__):
        if module.name != "__main__":
            importlib.import_module(f"{events.__name__}.{module.name}")


# --- words ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "A job may be in somebody's hand.",
        "Triggers in hand are let go.",
        "A worker has not beaten.",
        "An error that nobody foresaw.",
        "The clock stands still.",
        "Letters that stay.",
        "The judge's verdict in bad weather.",
        "A late write is made good on the last leg.",
        "Its caller was told; the answer was lost.",
    ],
)
def test_the_old_words_are_found(text: str) -> None:
    assert found_in(text)


@pytest.mark.parametrize(
    "text",
    [
        "On the other hand, it is handed to a handler.",
        "Dead letters; the dead-letter queue. Use letters, digits, - and _.",
        "`late_write.made_good` has the heartbeat `beat`.",
        "```\na sentence told in hand\n```",
        "[see](judge.md)",
    ],
)
def test_words_that_only_look_like_them_are_not(text: str) -> None:
    assert not found_in(text)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_uses_the_words_of_the_field(page: Path) -> None:
    assert not found_in(page.read_text())


def test_events_use_the_words_of_the_field() -> None:
    assert EVENTS
    texts = {name: f"{event.message} {event.remedy}" for name, event in EVENTS.items()} | dict(FIELDS)
    assert {name: found for name, text in texts.items() if (found := found_in(text))} == {}


def test_metrics_use_the_words_of_the_field() -> None:
    texts = {
        metric.name: " ".join([metric.meaning, metric.look, *metric.labels.values()]) for metric in Telemetry().declared
    }
    assert {name: found for name, text in texts.items() if (found := found_in(text))} == {}


def test_settings_use_the_words_of_the_field() -> None:
    texts = {name: str(field.description) for name, field in Settings.model_fields.items()}
    assert {name: found for name, text in texts.items() if (found := found_in(text))} == {}


def test_the_http_api_uses_the_words_of_the_field() -> None:
    document = openapi_document(Settings())
    texts = set(texts_of(document)) | {f"{kind.title}. {kind.meaning}" for kind in PROBLEMS.values()}
    assert len(texts) > 50, json.dumps(document)[:1000]
    assert [found for text in sorted(texts) for found in found_in(text)] == []


# --- paths ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_names_files_that_exist(page: Path) -> None:
    text = page.read_text()
    named = {ROOT / path for path in _SOURCE.findall(re.sub(r"https?://\S+", "", text))}
    linked = {
        page.parent / target.partition("#")[0]
        for target in _LINK.findall(text)
        if "://" not in target and target.partition("#")[0]
    }
    assert sorted(str(path) for path in named | linked if not path.exists()) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_links_to_headings_that_exist(page: Path) -> None:
    broken = []
    for target in _LINK.findall(page.read_text()):
        path, _, heading = target.partition("#")
        if heading and "://" not in target and heading not in headings(page.parent / path if path else page):
            broken.append(target)
    assert broken == []


def headings(page: Path) -> set[str]:
    """As GitHub makes anchors of them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_the_architecture_page_names_modules_that_exist() -> None:
    packages = "|".join(path.parent.name for path in PACKAGE.glob("*/__init__.py"))
    named = set(re.findall(rf"(?<![\w/.-])(?:{packages})(?:/[a-z]\w*)+", ARCHITECTURE.read_text()))
    assert len(named) > 60
    assert [
        name for name in sorted(named) if not ((PACKAGE / name).is_dir() or (PACKAGE / f"{name}.py").exists())
    ] == []


def test_the_architecture_page_draws_every_package_and_no_other() -> None:
    [tree] = re.findall(r"^```\ndynein/\n(.*?)^```", ARCHITECTURE.read_text(), re.MULTILINE | re.DOTALL)
    drawn, inside = set(), ""
    for line in tree.split("\n\n")[0].splitlines():
        indent, name = re.match(r"( *)(\S+)", line).groups()  # type: ignore[union-attr]
        name = name.rstrip("/")
        if len(indent) == 2:
            inside = name
        drawn.add(name if len(indent) == 2 else f"{inside}/{name}")
    packages = {str(path.parent.relative_to(PACKAGE)) for path in PACKAGE.rglob("__init__.py")} - {"."}
    assert drawn == packages | {"settings", "errors"}


def test_the_architecture_page_draws_the_layers_that_are_checked() -> None:
    text = ARCHITECTURE.read_text()
    drawn = [line.split("│  ")[0] for line in text.splitlines() if line.startswith("    │")]
    order = [name for line in drawn for name in re.findall(r"[a-z]+", line)]
    layers = re.search(r"^layers = \[\n(.*?)^\]", (ROOT / "pyproject.toml").read_text(), re.MULTILINE | re.DOTALL)
    assert layers is not None
    assert order == re.findall(r"[a-z]+", layers.group(1))
