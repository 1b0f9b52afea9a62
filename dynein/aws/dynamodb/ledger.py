"""The conservation ledger in DynamoDB: `dynein.core.ledger.LedgerStore`.

A posting is one transaction of ``ADD`` updates. It costs twice the write units of plain updates, and buys that a
posting whose response was lost can be repeated without being counted twice.

Transactions on one item conflict with each other, so every window has `SLOTS` items: a process writes to one of them,
and a reader adds them up.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dynein.aws.dynamodb.items import LEDGER_TTL_S, Item, identity, key_item, ledger_partition, number, text
from dynein.aws.dynamodb.table import DynamoTable
from dynein.core.keys import DUE_BYTES
from dynein.core.ledger import FLOWS, Counts, Posting

SLOTS = 8


class DynamoLedger:
    """See `dynein.core.ledger.LedgerStore`. ``slot``: any number; processes should have different ones."""

    def __init__(self, table: DynamoTable, window_ms: int, *, slot: int = 0) -> None:
        self._table = table
        self._window_ms = window_ms
        self._slot = slot % SLOTS

    async def post(self, posting: Posting) -> None:
        """One transaction. Its content depends on the posting alone, or DynamoDB would not recognise a repeat."""
        updates = [{"Update": self._update(start_ms, counts)} for start_ms, counts in posting.windows.items()]
        done = await self._table.transact(updates, repeat_id=posting.posting_id)
        assert done, "nothing in it is conditional"

    async def read(self, from_ms: int, until_ms: int) -> dict[int, Counts]:
        """A Query for each slot, strongly consistent."""
        windows: dict[int, Counts] = {}
        if from_ms >= until_ms:
            return windows
        for slot in range(SLOTS):
            for item in await self._table.query_all(self._in_slot(slot, from_ms, until_ms)):
                start_ms = int.from_bytes(identity(item)[1], "big")
                windows[start_ms] = windows.get(start_ms, Counts()).plus(_counts(item))
        return dict(sorted(windows.items()))

    def _in_slot(self, slot: int, from_ms: int, until_ms: int) -> Item:
        return {
            "KeyConditionExpression": "pk = :pk AND sk BETWEEN :from AND :last",
            "ExpressionAttributeValues": {
                ":pk": text(ledger_partition(self._window_ms, slot)),
                ":from": {"B": _sort_key(from_ms)},
                ":last": {"B": _sort_key(until_ms - 1)},
            },
            "ConsistentRead": True,
        }

    def _update(self, start_ms: int, counts: Counts) -> Item:
        changed = {flow: jobs for flow, jobs in zip(FLOWS, counts, strict=True) if jobs}
        assert changed, "a window without counts"
        return {
            "TableName": self._table.name,
            "Key": key_item(ledger_partition(self._window_ms, self._slot), _sort_key(start_ms)),
            "UpdateExpression": f"SET #ttl = :ttl ADD {', '.join(f'{flow} :{flow}' for flow in changed)}",
            "ExpressionAttributeNames": {"#ttl": "ttl"},  # a reserved word
            "ExpressionAttributeValues": {
                ":ttl": number((start_ms + self._window_ms) // 1000 + LEDGER_TTL_S),
                **{f":{flow}": number(jobs) for flow, jobs in changed.items()},
            },
        }


def _sort_key(start_ms: int) -> bytes:
    return start_ms.to_bytes(DUE_BYTES, "big")


def _counts(item: Mapping[str, Any]) -> Counts:
    return Counts(**{flow: int(item[flow]["N"]) for flow in FLOWS if flow in item})
