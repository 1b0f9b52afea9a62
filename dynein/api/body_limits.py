"""How large the body of a request may be, by what it is for."""

from __future__ import annotations

from typing import NamedTuple, Self

from dynein.api.problems import RequestTooLarge
from dynein.core.queues import MESSAGE_BYTES_MAX
from dynein.settings import Settings

JOB_ESCAPE_FACTOR = 6
"""JSON may spell a byte of a message with so many: ``\\u0041``."""
JOB_OVERHEAD_BYTES = 65_536
"""For a job's other fields, and white space."""
TIME_BYTES_MAX = 65_536
"""Of a request that has nothing but a due time."""


class BodyLimit(NamedTuple):
    """How large a body may be, and which setting says so."""

    bytes_max: int
    reason: str

    def check(self, size: int) -> None:
        """Raises `RequestTooLarge` for a body of ``size`` bytes that is too large."""
        if size > self.bytes_max:
            raise self.exceeded(f"{size} bytes")

    def exceeded(self, found: str) -> RequestTooLarge:
        """The error for a body of ``found``."""
        return RequestTooLarge(f"It has {found}; the limit is {self.bytes_max} ({self.reason}).")


class BodyLimits(NamedTuple):
    """For each kind of request."""

    batch: BodyLimit
    job: BodyLimit
    time: BodyLimit

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """A job larger than what any queue takes, however it is spelt, is not worth reading to its end."""
        job_bytes = MESSAGE_BYTES_MAX * JOB_ESCAPE_FACTOR + JOB_OVERHEAD_BYTES
        limits = (
            BodyLimit(settings.request_bytes_max, "setting request_bytes_max"),
            BodyLimit(job_bytes, "a job of SQS's largest message, however it is spelt"),
            BodyLimit(TIME_BYTES_MAX, "for a due time"),
        )
        return cls(*(min(limits[0], limit) for limit in limits))
