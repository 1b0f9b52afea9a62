"""How log lines look and where they go: standard error, one a line, for people or (JSON) for programs.

What is logged is in `dynein.observability.events`. Lines of libraries come out in the same form, as the event ``log``.
Whatever a caller sends in, it cannot make a second line, nor a line without end.
"""

from __future__ import annotations

import logging
import os
import sys
from collections import OrderedDict
from datetime import UTC, datetime
from typing import Literal

from dynein.observability.events.event import Line
from dynein.observability.one_line import as_json, clipped, encodable, flattened

PERIOD_S = 60.0
"""Events that say ``once_by`` come at most once in this time."""
KEYS_MAX = 10_000
"""Things that such events are told apart by; of more, those longest silent may be told too often."""
NOISY = ("aiobotocore", "botocore", "httpx", "httpcore", "urllib3", "uvicorn.access", "uvicorn.error")
"""Libraries that say at INFO what nobody asked for."""


class JsonFormatter(logging.Formatter):
    """One JSON object a line: ``time``, ``level``, ``event``, the event's fields, ``message``."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {"time": _rfc3339(record.created), "level": record.levelname}
        if isinstance(record.msg, Line):
            line["event"] = record.msg.event.name
            line |= {name: _value(value) for name, value in record.msg.fields.items()}
            line["message"] = record.msg.event.says
        else:
            line |= {"event": "log", "logger": record.name, "message": _value(record.getMessage())}
        line |= _extra(record)
        if record.exc_info:
            line["exception"] = encodable(self.formatException(record.exc_info))
        return as_json(line)


class ConsoleFormatter(logging.Formatter):
    """Time, level, event, sentence, fields. A trace follows, indented, so that nothing in it passes for a line."""

    def format(self, record: logging.LogRecord) -> str:
        name = record.msg.event.name if isinstance(record.msg, Line) else record.name
        words = str(record.msg) if isinstance(record.msg, Line) else flattened(clipped(record.getMessage()))
        who = "".join(f" [{value}]" for value in (" ".join(map(str, _extra(record).values())),) if value)
        lines = [f"{_rfc3339(record.created)} {record.levelname:<7}{who} {name}: {words}"]
        if record.exc_info:
            lines += [f"    {flattened(line)}" for line in self.formatException(record.exc_info).splitlines()]
        return "\n".join(lines)


class Sparing(logging.Filter):
    """Lets an event that says ``once_by`` through once a minute for each key; the next to come says how many did not.

    So a destination that is gone costs one line a minute, not one a job.
    """

    def __init__(self, period_s: float = PERIOD_S, keys_max: int = KEYS_MAX) -> None:
        super().__init__()
        self._period_s = period_s
        self._keys_max = keys_max
        self._told: OrderedDict[tuple[object, ...], tuple[float, int]] = OrderedDict()
        """By event and key: when there was a line, and how many were left out since."""

    def filter(self, record: logging.LogRecord) -> bool:
        line = record.msg
        if not isinstance(line, Line) or line.event.once_by is None:
            return True
        key = (line.event.name, *(line.fields.get(name) for name in line.event.once_by))
        at, left_out = self._told.get(key, (float("-inf"), 0))
        # A wall clock that was set back must not silence anything for hours.
        if 0 <= record.created - at < self._period_s:
            self._told[key] = (at, left_out + 1)
            return False
        self._told[key] = (record.created, 0)
        self._told.move_to_end(key)
        if len(self._told) > self._keys_max:
            self._told.popitem(last=False)
        if left_out:
            line.fields["repeats"] = left_out
        return True


class _Origin(logging.Filter):
    """Puts on each record which process it is from."""

    def __init__(self, worker: str) -> None:
        super().__init__()
        self._worker = worker

    def filter(self, record: logging.LogRecord) -> bool:
        record.worker = self._worker
        return True


def configure_logging(log_format: Literal["console", "json"], level: str, *, worker: str | None = None) -> None:
    """Set up the process's logging, once, from the composition root.

    ``worker``: which of several processes this is; each line then says so, and its process id.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(Sparing())
    if worker is not None:
        handler.addFilter(_Origin(worker))
    handler.setFormatter(JsonFormatter() if log_format == "json" else ConsoleFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for noisy in NOISY:
        logging.getLogger(noisy).setLevel(max(logging.WARNING, logging.getLevelName(level)))


def _extra(record: logging.LogRecord) -> dict[str, object]:
    worker = getattr(record, "worker", None)
    return {} if worker is None else {"worker": worker, "pid": os.getpid()}


def _rfc3339(created_s: float) -> str:
    return datetime.fromtimestamp(created_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _value(value: object) -> object:
    return clipped(value) if isinstance(value, str) else value
