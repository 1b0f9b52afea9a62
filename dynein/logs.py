"""Log lines: for people on a console, or JSON for programs. One line for each decision that matters."""

from __future__ import annotations

import logging
import os
import sys
from typing import Literal

import msgspec

_RESERVED = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """One JSON object a line; whatever was passed in ``extra`` becomes a field."""

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, object] = {
            "at": int(record.created * 1000),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        fields |= {name: value for name, value in vars(record).items() if name not in _RESERVED}
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return msgspec.json.encode(fields, enc_hook=str).decode("utf-8")


class _Origin(logging.Filter):
    """Puts on each record which process it is from."""

    def __init__(self, worker: str) -> None:
        super().__init__()
        self._worker = worker

    def filter(self, record: logging.LogRecord) -> bool:
        record.worker = self._worker
        record.pid = record.process
        return True


def configure_logging(log_format: Literal["console", "json"], level: str, *, worker: str | None = None) -> None:
    """Set up the process's logging, once, from the composition root.

    ``worker``: which of several processes this is; each line then says so, and its process id.
    """
    handler = logging.StreamHandler(sys.stderr)
    who = ""
    if worker is not None:
        who = f" [{worker} {os.getpid()}]"
        handler.addFilter(_Origin(worker))
    if log_format == "json":
        handler.setFormatter(JsonFormatter())
    else:
        handler.setFormatter(logging.Formatter(f"%(asctime)s %(levelname)-7s{who} %(name)s: %(message)s"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    # These say at INFO what nobody asked for.
    for noisy in ("aiobotocore", "botocore", "httpx", "httpcore", "uvicorn.access", "uvicorn.error"):
        logging.getLogger(noisy).setLevel(max(logging.WARNING, logging.getLevelName(level)))
