"""Counts requests by operation, entries, and what AWS would bill."""

from __future__ import annotations

from collections import Counter
from typing import Any

CHUNK_BYTES = 65_536
"""SQS bills a request by 64 KiB chunk of its payload (https://aws.amazon.com/sqs/pricing/)."""
WRITE_UNIT_BYTES = 1_024
READ_UNIT_BYTES = 4_096
"""DynamoDB, on-demand: a write unit is 1 KB of one item; a strongly consistent read unit is 4 KB."""


class Meter:
    """Everything counted since the start. Readers take differences."""

    def __init__(self) -> None:
        self.requests: Counter[str] = Counter()
        self.entries: Counter[str] = Counter()
        self.billed: Counter[str] = Counter()
        """SQS requests as billed, by operation."""
        self.write_units: Counter[str] = Counter()
        self.read_units: Counter[str] = Counter()
        self.bytes_in = 0

    def sqs(self, operation: str, entries: int, payload_bytes: int) -> None:
        """One SQS request. ``payload_bytes``: exact, or any upper bound that is at most one chunk."""
        self.requests[operation] += 1
        self.entries[operation] += entries
        self.billed[operation] += max(1, -(-payload_bytes // CHUNK_BYTES))

    def dynamodb(self, operation: str, items: int, *, write_units: int = 0, read_units: int = 0) -> None:
        """One DynamoDB request."""
        self.requests[operation] += 1
        self.entries[operation] += items
        self.write_units[operation] += write_units
        self.read_units[operation] += read_units

    def snapshot(self) -> dict[str, Any]:
        """As JSON-ready values."""
        return {
            "requests": dict(self.requests),
            "entries": dict(self.entries),
            "billed": dict(self.billed),
            "write_units": dict(self.write_units),
            "read_units": dict(self.read_units),
            "bytes_in": self.bytes_in,
        }


def write_units(*sizes_bytes: int) -> int:
    """Of a put, update or delete: by the larger of the item before and after, at least one."""
    return max(1, -(-max(sizes_bytes) // WRITE_UNIT_BYTES))


def read_units(size_bytes: int) -> int:
    """Of a strongly consistent read: an item's size, or a Query's sum of sizes; at least one."""
    return max(1, -(-size_bytes // READ_UNIT_BYTES))
