"""The roster of live processes in DynamoDB: `dynein.core.shard_records.Roster`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dynein.aws.dynamodb.items import (
    MEMBER_TTL_S,
    identity,
    key_item,
    member_partition,
    number,
    text,
)
from dynein.aws.dynamodb.table import DynamoCalls
from dynein.observability.telemetry import Telemetry
from dynein.runtime.clock import Clock

if TYPE_CHECKING:
    from types_aiobotocore_dynamodb import DynamoDBClient


class DynamoRoster:
    """See `dynein.core.shard_records.Roster`. A member that never leaves is forgotten a day after its last beat."""

    def __init__(self, client: DynamoDBClient, table: str, clock: Clock, telemetry: Telemetry) -> None:
        self._calls = DynamoCalls(client, table, clock, telemetry)

    async def heartbeat(self, role: str, member: str, heartbeat: int) -> None:
        """Write that ``member`` is alive."""
        item = key_item(member_partition(role), member.encode())
        item["beat"] = number(heartbeat)
        item["ttl"] = number(self._calls.clock.now_ms() // 1000 + MEMBER_TTL_S)
        await self._calls.put(item)

    async def members(self, role: str) -> dict[str, int]:
        """Last beat of every member that has not left; strongly consistent."""
        request: dict[str, Any] = {
            "KeyConditionExpression": "pk = :pk",
            "ExpressionAttributeValues": {":pk": text(member_partition(role))},
            "ConsistentRead": True,
        }
        members = await self._calls.query_all(request)
        return {identity(item)[1].decode(): int(item["beat"]["N"]) for item in members}

    async def leave(self, role: str, member: str) -> None:
        """Forget ``member`` at once."""
        await self._calls.delete(key_item(member_partition(role), member.encode()))
