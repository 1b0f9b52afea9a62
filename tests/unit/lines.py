"""What was logged, as fields."""

from __future__ import annotations

import unicodedata
from typing import Any

import pytest

from dynein.observability.events.event import Line


def lines(caplog: pytest.LogCaptureFixture, *events: str) -> list[dict[str, Any]]:
    """Every line of these events (all, if none is named), in order: its event and its fields."""
    found = [record.msg for record in caplog.records if isinstance(record.msg, Line)]
    return [{"event": line.event.name, **line.fields} for line in found if not events or line.event.name in events]


def names(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The events of all lines, in order."""
    return [line["event"] for line in lines(caplog)]


def not_shown(text: str) -> list[str]:
    """The characters of ``text`` that a terminal does not show, but acts on: controls, formats, line separators."""
    return [character for character in text if unicodedata.category(character) in {"Cc", "Cf", "Cs", "Zl", "Zp"}]
