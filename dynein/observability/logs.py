"""How log lines look and where they go: standard error, one a line, for people or (JSON) for programs.

The events are declared in `dynein.observability.events`. Log lines of libraries have the same form, as the event
``log``. Whatever text a caller sends, it cannot start a second line, and each value's length is bounded.
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
"""Events with ``once_by`` are logged at most once in this time."""
KEYS_MAX = 10_000
"""Keys (event and values of its ``once_by``) remembered. Beyond that the least recently logged is forgotten, and may be
logged more often."""
NOISY = ("aiobotocore", "botocore", "httpx", "httpcore", "urllib3", "uvicorn.access", "uvicorn.error")
"""Libraries whose INFO lines are of no use to an operator."""


class JsonFormatter(logging.Formatter):
    """One JSON object a line: ``time``, ``level``, ``event``, the event's fields, ``message``."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {"time": _rfc3339(record.created), "level": record.levelname}
        if isinstance(record.msg, Line):
            line["event"] = record.msg.event.name
            line |= {name: _value(value) for name, value in record.msg.fields.items()}
            line["message"] = record.msg.event.message
        else:
            line |= {"event": "log", "logger": record.name, "message": _value(record.getMessage())}
        line |= _extra(record)
        if record.exc_info:
            line["exception"] = encodable(self.formatException(record.exc_info))
        return as_json(line)


class ConsoleFormatter(logging.Formatter):
    """Time, level, event, message, fields. A traceback follows, indented, so that none of it looks like a log line."""

    def format(self, record: logging.LogRecord) -> str:
        name = record.msg.event.name if isinstance(record.msg, Line) else record.name
        words = str(record.msg) if isinstance(record.msg, Line) else flattened(clipped(record.getMessage()))
        who = "".join(f" [{value}]" for value in (" ".join(map(str, _extra(record).values())),) if value)
        lines = [f"{_rfc3339(record.created)} {record.levelname:<7}{who} {name}: {words}"]
        if record.exc_info:
            lines += [f"    {flattened(line)}" for line in self.formatException(record.exc_info).splitlines()]
        return "\n".join(lines)


class Sparing(logging.Filter):
    """Passes an event with ``once_by`` once a minute for each key; the next line has the number suppressed in between.

    So a destination queue that was deleted costs one line a minute, not one for each job.
    """

    def __init__(self, period_s: float = PERIOD_S, keys_max: int = KEYS_MAX) -> None:
        super().__init__()
        self._period_s = period_s
        self._keys_max = keys_max
        self._logged: OrderedDict[tuple[object, ...], tuple[float, int]] = OrderedDict()
        """By event and key: the time of the last line, and how many were suppressed since."""

    def filter(self, record: logging.LogRecord) -> bool:
        line = record.msg
        if not isinstance(line, Line) or line.event.once_by is None:
            return True
        key = (line.event.name, *(line.fields.get(name) for name in line.event.once_by))
        at, suppressed = self._logged.get(key, (float("-inf"), 0))
        # A wall clock that was set back must not suppress lines for hours.
        if 0 <= record.created - at < self._period_s:
            self._logged[key] = (at, suppressed + 1)
            return False
        self._logged[key] = (record.created, 0)
        self._logged.move_to_end(key)
        if len(self._logged) > self._keys_max:
            self._logged.popitem(last=False)
        if suppressed:
            line.fields["repeats"] = suppressed
        return True


class _Origin(logging.Filter):
    """Adds to each record the process it is from."""

    def __init__(self, worker: str) -> None:
        super().__init__()
        self._worker = worker

    def filter(self, record: logging.LogRecord) -> bool:
        record.worker = self._worker
        return True


def configure_logging(log_format: Literal["console", "json"], level: str, *, worker: str | None = None) -> None:
    """Set up the process's logging, once, from the composition root.

    ``worker``: the name of this process among several; each line then has it, with the process id.
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


def quieten_credentials() -> None:
    """Drop the AWS SDK's warnings about credentials where it raises the same as an error."""
    for name in ("botocore.credentials", "botocore.tokens", "aiobotocore.credentials", "aiobotocore.tokens"):
        logging.getLogger(name).addFilter(_RaisedAnyway())


class _RaisedAnyway(logging.Filter):
    """Drops the SDK's warning about credentials that could not be renewed where it raises the same as an error.

    A renewal that has time left is only logged, which passes, without its traceback.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """See `logging.Filter.filter`."""
        record.exc_info = record.exc_text = None
        return "mandatory" not in record.getMessage()


def _extra(record: logging.LogRecord) -> dict[str, object]:
    worker = getattr(record, "worker", None)
    return {} if worker is None else {"worker": worker, "pid": os.getpid()}


def _rfc3339(created_s: float) -> str:
    return datetime.fromtimestamp(created_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _value(value: object) -> object:
    return clipped(value) if isinstance(value, str) else value
