"""Deduplication ids that callers gave to recent jobs: SQS drops the later of two within five minutes, in silence.

One process sees only the jobs that it accepts itself, and remembers a bounded number of them: a warning is right, its
absence proves nothing. Pure, but for what it remembers.
"""

from __future__ import annotations

from collections import OrderedDict

from dynein.api.drafting import Draft
from dynein.api.schemas import JobWarning

WINDOW_MS = 300_000
"""SQS: the deduplication interval of FIFO queues, from the moment at which the first message is sent."""
IDS_MAX = 10_000
"""The one that was given least recently is forgotten first."""

SAME_ID = JobWarning(
    "same-deduplication-id",
    "Another job with this deduplication_id is due on this queue within five minutes of this one. SQS takes both and "
    "delivers the earlier one only.",
    "Leave deduplication_id out, or send one that no other job has.",
)


class RecentDeduplication:
    """What one process remembers. Ids count by queue, as SQS does unless the queue's scope is the message group."""

    def __init__(self) -> None:
        self._last: OrderedDict[tuple[str, str], tuple[int, str]] = OrderedDict()
        """By queue and deduplication id: when the last job with it is due, and its token."""

    def warnings_of(self, url: str, ready: Draft) -> tuple[JobWarning, ...]:
        """Remember the job, which is sent to ``url``; returns what its submitter should know."""
        key = _key(url, ready)
        if key is None:
            return ()
        due_at_ms, token = self._last.pop(key, (-WINDOW_MS, ""))
        self._last[key] = (ready.due_at_ms, ready.token)
        if len(self._last) > IDS_MAX:
            self._last.popitem(last=False)
        is_other = token != ready.token  # the create of a prepared token may be repeated
        return (SAME_ID,) if is_other and abs(ready.due_at_ms - due_at_ms) < WINDOW_MS else ()

    def forget(self, url: str, ready: Draft) -> None:
        """The job was not accepted: a repeat of it is no second one."""
        key = _key(url, ready)
        if key is not None:
            self._last.pop(key, None)


def _key(url: str, ready: Draft) -> tuple[str, str] | None:
    return None if ready.job.deduplication_id is None else (url, ready.job.deduplication_id)
