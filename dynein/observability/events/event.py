"""What an event is, and how it becomes a line."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import NamedTuple

from dynein.errors import DyneinError
from dynein.observability.one_line import quoted

FIELDS: Mapping[str, str] = {
    "role": "which role of the process: `api`, `ingester`, `dispatcher`; none for what concerns the whole process",
    "token": "the job's token",
    "queue": "destination queue, as the job names it",
    "policy": "how the job gets there",
    "due_at_ms": "due time, milliseconds since 1970",
    "lateness_ms": "send time minus due time",
    "previous_token": "the token it had before it was moved",
    "request_id": "the HTTP request: `X-Request-Id` of its answer",
    "trace_id": "W3C trace id of whoever submitted the job",
    "method": "HTTP method",
    "path": "HTTP path",
    "status": "HTTP status",
    "code": "what kind of failure: AWS's code, or the `code` of a problem document",
    "field": "the field of the request that is wrong",
    "error": "what went wrong, in words",
    "reason": "why, as it is written on the dead letter",
    "jobs": "how many jobs",
    "caller": "address of whoever sent the request",
    "connections": "how many HTTP connections",
    "messages": "how many messages of the inbound or dead-letter queue",
    "failures": "failures in a row",
    "failing_s": "for how long it has been failing",
    "retry_in_s": "when it is tried again",
    "shard": "shard",
    "bucket": "time bucket, by its index",
    "fence": "counts the owners of a shard",
    "member": "this process in the table's records",
    "job_id": "job id, where there is no readable token",
    "message_id": "SQS's id of the inbound message",
    "what": "what was being done",
    "operation": "AWS operation",
    "url": "address",
    "version": "version of Dynein",
    "roles": "roles of the process",
    "workers": "number of worker processes",
    "number": "which worker process",
    "within_s": "the time there was for it",
    "took_s": "how long it took",
    "repeats": "how many lines like this were left out since the last one (events that come at most once a minute)",
}
"""What each field means, whatever event it is in."""

CATALOGUE: dict[str, Event] = {}
"""Every event by name, once the modules of this package are imported."""


class Event:
    """One kind of line. ``says`` is the same every time: what differs is in the fields.

    ``role``: the one role that has this event; others say theirs at each call. ``once_by``: at most one line a minute
    (`dynein.observability.logs.PERIOD_S`) for each value of these fields.
    """

    def __init__(
        self,
        name: str,
        level: int,
        says: str,
        fields: str,
        remedy: str,
        *,
        role: str | None = None,
        once_by: tuple[str, ...] | None = None,
    ) -> None:
        self.name = name
        self.level = level
        self.says = says
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
        """Would it be logged? Ask once a batch where there is one line a job."""
        return self._logger.isEnabledFor(self.level)

    def log(self, cause: BaseException | None = None, **fields: object) -> None:
        """Log it, without the fields that are ``None``.

        ``cause`` is told in the field ``error``; an error that nobody foresaw, so none of `DyneinError`, with where it
        came from too.
        """
        if not self.enabled:
            return
        given = {name: value for name, value in {"role": self.role, **fields}.items() if value is not None}
        if cause is not None:
            given["error"] = str(cause) or type(cause).__name__
        assert given.keys() <= set(self.fields), (self.name, given.keys() - set(self.fields))
        unforeseen = cause is not None and not isinstance(cause, DyneinError)
        self._logger.log(self.level, Line(self, given), exc_info=cause if unforeseen else None)


class Line(NamedTuple):
    """An event that happened: the ``msg`` of its log record."""

    event: Event
    fields: dict[str, object]

    def __str__(self) -> str:
        """For people, on one line."""
        return " ".join([self.event.says, *(f"{name}={quoted(value)}" for name, value in self.fields.items())])
