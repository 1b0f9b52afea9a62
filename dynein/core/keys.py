"""Where a trigger lives: due time and job id to (time bucket, shard), and the key codec. Pure; the only such place.

The partition key is text, so that an operator can read it in the console::

    t#29850417#3        time bucket 29,850,417, shard 3

The sort key is binary, so that byte order is due order::

    due time, ms (6 bytes, big-endian) | job id (12 bytes) | kind (1 byte)

A *job id* begins with the time at which the job was accepted, so that of jobs with the same due time the one that was
accepted first comes first; its end is random.

The *kind* puts a tombstone next to the trigger that it cancels: both have the same due time and job id, and the
tombstone (0) sorts just before the trigger (1), so a dispatcher that reads a range in order meets the tombstone first.
"""

from __future__ import annotations

import hashlib
import re
from enum import IntEnum
from typing import NamedTuple

JOB_ID_BYTES = 12
RANDOM_BYTES = 5
"""The end of a job id. Two processes that make ids in the same microsecond make different ones."""
DUE_BYTES = 6
DUE_MAX_MS = (1 << (8 * DUE_BYTES)) - 1
"""The last representable due time: the year 10889."""
SHARDS_MAX = 1 << 16
_PARTITION_KEY = re.compile(r"t#(\d+)#(\d+)", re.ASCII)
_SORT_KEY_BYTES = DUE_BYTES + JOB_ID_BYTES + 1


class Kind(IntEnum):
    """What a record in a time bucket is."""

    TOMBSTONE = 0
    TRIGGER = 1


_KINDS = {kind.value: kind for kind in Kind}


class TriggerKey(NamedTuple):
    """Names one trigger. Sorts by due time."""

    due_at_ms: int
    job_id: bytes
    shard: int


class FifoGroup(NamedTuple):
    """A message group of one FIFO queue: its jobs are to be delivered in order."""

    queue: str
    """By name: a queue may be given by name or URL, and is the same queue."""
    group: str


def make_job_id(accepted_us: int, random: bytes) -> bytes:
    """The id of a job. ``accepted_us``: when it was accepted, microseconds since 1970; ``random``: `RANDOM_BYTES`."""
    return accepted_us.to_bytes(JOB_ID_BYTES - RANDOM_BYTES, "big") + random


def shard_of(job_id: bytes, shard_count: int) -> int:
    """The shard a new job goes to. The end of a job id is random, so shards fill evenly."""
    return int.from_bytes(job_id[-4:], "big") % shard_count


def fifo_shard_of(group: FifoGroup, fifo_shard_count: int) -> int:
    """The shard of all jobs of a message group. So one dispatcher at a time sends them, in the order it reads them.

    ``fifo_shard_count`` never changes: a group that changed its shard would have two dispatchers for a while.
    """
    digest = hashlib.blake2b(f"{group.queue}\0{group.group}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % fifo_shard_count


def bucket_of(due_at_ms: int, bucket_width_ms: int) -> int:
    """The index of the time bucket that holds ``due_at_ms``."""
    return due_at_ms // bucket_width_ms


def partition_key(bucket: int, shard: int) -> str:
    """The partition key of one (time bucket, shard)."""
    return f"t#{bucket}#{shard}"


def parse_partition_key(text: str) -> tuple[int, int] | None:
    """``(bucket, shard)``, or ``None`` for a key that names something other than a time bucket."""
    match = _PARTITION_KEY.fullmatch(text)
    return (int(match[1]), int(match[2])) if match else None


def sort_key(key: TriggerKey, kind: Kind) -> bytes:
    """The sort key of a trigger or of its tombstone."""
    return key.due_at_ms.to_bytes(DUE_BYTES, "big") + key.job_id + kind.to_bytes(1, "big")


def parse_sort_key(raw: bytes, shard: int) -> tuple[TriggerKey, Kind]:
    """Inverse of `sort_key`. Raises `ValueError` for bytes that are not one."""
    if len(raw) != _SORT_KEY_BYTES:
        raise ValueError(f"a sort key has {_SORT_KEY_BYTES} bytes, this one has {len(raw)}")
    kind = _KINDS.get(raw[-1])
    if kind is None:
        raise ValueError(f"no kind of record is {raw[-1]}")
    return TriggerKey(int.from_bytes(raw[:DUE_BYTES], "big"), raw[DUE_BYTES:-1], shard), kind


def range_after(due_at_ms: int) -> bytes:
    """The smallest possible sort key of anything due later than ``due_at_ms``."""
    return (due_at_ms + 1).to_bytes(DUE_BYTES, "big")


def range_from(due_at_ms: int) -> bytes:
    """The smallest possible sort key of anything due at ``due_at_ms``."""
    return due_at_ms.to_bytes(DUE_BYTES, "big")
