"""What an event is, and how it becomes a line."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import NamedTuple

from dynein.errors import DyneinError
from dynein.observability.one_line import quoted

FIELDS: Mapping[str, str] = {
    "role": "role of the process: `api`, `ingester`, `dispatcher`; absent where the whole process is concerned",
    "token": "the job's token",
    "queue": "destination queue, as given in the job",
    "policy": "schedule policy: `IMMEDIATE`, `SQS_DELAYED` or `SCHEDULED`",
    "due_at_ms": "due time, milliseconds since 1970",
    "lateness_ms": "send time minus due time, milliseconds",
    "previous_token": "the job's token before it was moved",
    "request_id": "the HTTP request: `X-Request-Id` of its response",
    "trace_id": "W3C trace id of the request that submitted the job",
    "method": "HTTP method",
    "path": "HTTP path, of limited length; a token in it is cut to its first part, which still names the job",
    "status": "HTTP status",
    "code": "kind of failure: AWS's error code, or the `code` of a problem document",
    "field": "the request field that is invalid",
    "error": "error message",
    "reason": "why the job was dead-lettered, as stored on the dead letter",
    "jobs": "how many jobs",
    "caller": "address of whoever sent the request",
    "connections": "how many HTTP connections",
    "messages": "how many messages of the inbound or dead-letter queue",
    "failures": "consecutive failures",
    "failing_s": "for how long it has been failing, seconds",
    "retry_in_s": "seconds until the next attempt",
    "shard": "shard number",
    "bucket": "index of the time bucket",
    "fence": "number of this lease: it grows by one with each change of owner",
    "member": "name of this process in the roster and on shard records",
    "job_id": "job id, where there is no readable token",
    "message_id": "SQS's id of the inbound message",
    "what": "what was being done",
    "operation": "AWS operation",
    "url": "address",
    "ops_url": "address of probes and metrics",
    "version": "version of Dynein",
    "roles": "roles of the process",
    "workers": "number of worker processes",
    "number": "number of the worker process",
    "within_s": "time limit, seconds",
    "took_s": "duration, seconds",
    "repeats": "how many lines like this one were suppressed since the last (events logged at most once a minute)",
}
"""What each field means. A field means the same in every event."""

CATALOGUE: dict[str, Event] = {}
"""Every event by name, once the modules of this package are imported."""


class Event:
    """One kind of log line. ``message`` is constant: whatever differs from line to line is in the fields.

    ``role``: set for an event that only one role logs; for all others the role is passed at each call. ``once_by``: at
    most one line a minute (`dynein.observability.logs.PERIOD_S`) for each combination of values of these fields.
    """

    def __init__(
        self,
        name: str,
        level: int,
        message: str,
        fields: str,
        remedy: str,
        *,
        role: str | None = None,
        once_by: tuple[str, ...] | None = None,
    ) -> None:
        self.name = name
        self.level = level
        self.message = message
        self.fields = tuple(fields.split())
        self.remedy = remedy
        self.role = role
        self.once_by = once_by
        self._logger = logging.getLogger(f"dynein.{name}")
        assert name not in CATALOGUE, name
        assert FIELDS.keys() >= set(self.fields) >= set(once_by or ()), name
        assert (once_by is not None) == ("repeats" in self.fields), name
        CATALOGUE[name] = self

    @property
    def enabled(self) -> bool:
        """Whether it would be logged. Check once for a batch where there is one line for each job."""
        return self._logger.isEnabledFor(self.level)

    def log(self, cause: BaseException | None = None, **fields: object) -> None:
        """Log it, without the fields that are ``None``.

        ``cause`` goes into the field ``error``. An unexpected one, which is any that is no `DyneinError`, is logged
        with its traceback.
        """
        if not self.enabled:
            return
        given = {name: value for name, value in {"role": self.role, **fields}.items() if value is not None}
        if cause is not None:
            given["error"] = str(cause) or type(cause).__name__
        assert given.keys() <= set(self.fields), (self.name, given.keys() - set(self.fields))
        unexpected = cause is not None and not isinstance(cause, DyneinError)
        self._logger.log(self.level, Line(self, given), exc_info=cause if unexpected else None)


class Line(NamedTuple):
    """One occurrence of an event: the ``msg`` of its log record."""

    event: Event
    fields: dict[str, object]

    def __str__(self) -> str:
        """For people, on one line."""
        return " ".join([self.event.message, *(f"{name}={quoted(value)}" for name, value in self.fields.items())])
