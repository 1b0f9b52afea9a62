"""The reference page of all events (``docs/reference/logs.md``): ``python -m dynein.observability.events``."""

from __future__ import annotations

import logging

from dynein.observability.events import api, delivery, ingest, ledger, process, scheduler
from dynein.observability.events.event import FIELDS, Event, Line
from dynein.observability.logs import JsonFormatter

_CHAPTERS = (
    ("API: requests and jobs", api),
    ("Ingesters", ingest),
    ("Dispatchers and their leases", scheduler),
    ("Deliveries and dead letters", delivery),
    ("Processes and AWS", process),
    ("The ledger", ledger),
)
_HEAD = """\
# Log lines

Generated from the code by `make reference`. `DYNEIN_LOG_FORMAT=json` writes one JSON object a line, for programs;
`console` writes for people. `DYNEIN_LOG_LEVEL` is the lowest level logged. Lines go to standard error.

At the default level, `INFO`, a healthy service logs nothing about single jobs except that they were cancelled or moved.
At `DEBUG` each job can be followed by its `token`: accepted, held or stored, delivered. Failures that repeat (marked
*at most once a minute*) are logged once a minute for each value of the fields named, with the number of lines
suppressed in between (`repeats`).

```json
SAMPLE
```

`event` is stable: programs should match on it. `message` is the text under *what happened* below. Fields that do not
apply are omitted, and a text longer than 1,024 characters is truncated. Neither bodies nor secrets are ever logged, and
text from outside cannot start a new line. With `--workers`, `worker` and `pid` name the process. An unexpected error
has its traceback in `exception`. Log lines of libraries have the event `log`.
"""


def reference_markdown() -> str:
    """The page."""
    lines = [_HEAD.replace("SAMPLE", JsonFormatter().format(_sample()))]
    for title, module in _CHAPTERS:
        lines += [
            f"## {title}",
            "",
            "| event | level | what happened | fields | what to do |",
            "| --- | --- | --- | --- | --- |",
        ]
        lines += [_row(event) for event in vars(module).values() if isinstance(event, Event)]
        lines.append("")
    lines += ["## Fields", "", "| field | meaning |", "| --- | --- |"]
    lines += [f"| `{name}` | {meaning} |" for name, meaning in FIELDS.items()]
    return "\n".join(lines) + "\n"


def _sample() -> logging.LogRecord:
    fields = {
        "role": scheduler.ROLE,
        "token": "AgGT...",
        "queue": "demo",
        "due_at_ms": 1_896_080_400_000,
        "lateness_ms": 4,
        "trace_id": "0af7651916cd43dd8448eb211c80319c",
    }
    event = delivery.JOB_DELIVERED
    record = logging.makeLogRecord(
        {"msg": Line(event, dict(fields)), "levelname": logging.getLevelName(event.level), "created": 1_896_080_400.012}
    )
    assert fields.keys() == set(event.fields)
    return record


def _row(event: Event) -> str:
    happened = event.message
    if event.once_by is not None:
        happened += f" *(at most once a minute{_by(event.once_by)})*"
    fields = ", ".join(f"`{name}`" for name in event.fields)
    return f"| `{event.name}` | {logging.getLevelName(event.level)} | {happened} | {fields} | {event.remedy} |"


def _by(fields: tuple[str, ...]) -> str:
    return f" by {', '.join(f'`{name}`' for name in fields)}" if fields else ""
