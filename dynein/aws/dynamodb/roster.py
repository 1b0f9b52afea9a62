"""The roster of live processes in DynamoDB: `dynein.core.shard_records.Roster`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dynein.aws.dynamodb.items import (
    MEMBER_TTL_S,
    identity,
    key_item,
    member_partition,
    number,
    text,
)
from dynein.aws.dynamodb.table import DynamoTable


class DynamoRoster:
    """See `dynein.core.shard_records.Roster`. A member that never leaves is deleted days after its last heartbeat."""

    def __init__(self, table: DynamoTable) -> None:
        self._table = table

    async def heartbeat(self, role: str, member: str, heartbeat: int) -> None:
        """Write that ``member`` is alive."""
        item = key_item(member_partition(role), member.encode())
        item["beat"] = number(heartbeat)
        item["ttl"] = number(self._table.clock.now_ms() // 1000 + MEMBER_TTL_S)
        await self._table.put(item)

    async def members(self, role: str) -> dict[str, int]:
        """The last heartbeat of every member that has not left; strongly consistent."""
        return {identity(item)[1].decode(): int(item["beat"]["N"]) for item in await self._items(role)}

    async def last_seen(self, role: str) -> dict[str, int]:
        """By the time at which the heartbeat says that it may be deleted; strongly consistent."""
        return {
            identity(item)[1].decode(): (int(item["ttl"]["N"]) - MEMBER_TTL_S) * 1000
            for item in await self._items(role)
        }

    async def _items(self, role: str) -> list[Mapping[str, Any]]:
        request: dict[str, Any] = {
            "KeyConditionExpression": "pk = :pk",
            "ExpressionAttributeValues": {":pk": text(member_partition(role))},
            "ConsistentRead": True,
        }
        return await self._table.query_all(request)

    async def leave(self, role: str, member: str) -> None:
        """Forget ``member`` at once."""
        await self._table.delete(key_item(member_partition(role), member.encode()))
