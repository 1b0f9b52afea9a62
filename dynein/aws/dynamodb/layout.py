"""The table itself: made, checked, and given more shards while everything runs.

The layout is recorded in the table, and the record is what counts: two processes that cut the same table in different
ways would not find each other's triggers.
"""

from __future__ import annotations

import asyncio
from typing import Any, NamedTuple

from botocore.exceptions import ClientError

from dynein.aws.dynamodb.items import (
    Item,
    identity,
    layout_item,
    layout_key,
    number,
    read_layout,
    shard_item,
    shard_key,
)
from dynein.aws.dynamodb.table import DynamoTable
from dynein.aws.errors import error_code
from dynein.core.shard_records import Layout, new_shard_record
from dynein.errors import LayoutMismatch, NotBootstrapped, Unavailable
from dynein.settings import NEW_TABLE_BUCKET_WIDTH_S, NEW_TABLE_SHARD_COUNT, Settings

KEY_SCHEMA = [{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}]
ATTRIBUTES = [{"AttributeName": "pk", "AttributeType": "S"}, {"AttributeName": "sk", "AttributeType": "B"}]
TTL_ATTRIBUTE = "ttl"

NOT_THERE = "attribute_not_exists(pk)"
"""A shard record or layout that exists is never overwritten: its marks and its lease are in use."""
COUNT_UNCHANGED = "bucket_width_ms = :width AND shard_count = :seen"
"""Of two bootstraps at a time, one raises the shard count; the other starts over from what it finds then."""

_POLL_S = 0.25
_POLLS_MAX = 480  # two minutes; AWS makes a table in some ten seconds
_PUTS_AT_ONCE = 16
_RACE_TRIES = 5


class _LostRace(Unavailable):
    """Another bootstrap changed the layout in the meantime."""


class TableStep(NamedTuple):
    """One thing that bootstrap has taken care of. ``outcome``: ``created``, ``updated`` or ``verified``."""

    resource: str
    outcome: str
    detail: str


async def bootstrap_table(table: DynamoTable, settings: Settings) -> list[TableStep]:
    """Create the table or verify it, record the layout, add shards if the settings ask for more. Idempotent.

    Raises `LayoutMismatch` when the table cannot become what the settings say.
    """
    created = await _create(table) if await _describe(table) is None else False
    _check_schema(table.name, await _active(table))
    ttl_enabled = await _enable_ttl(table)
    outcome = "created" if created else "updated" if ttl_enabled else "verified"
    table_step = TableStep(f"table {table.name}", outcome, f"TTL on {TTL_ATTRIBUTE}")
    return [table_step, await _record_layout(table, settings)]


async def verify_layout(table: DynamoTable, settings: Settings) -> Layout:
    """The recorded layout, if it is what the settings say; for the start of a process.

    Raises `NotBootstrapped` when table or layout is missing, `LayoutMismatch` saying what to do when they differ.
    """
    recorded = await _recorded_layout(table)
    if recorded is None:
        raise NotBootstrapped(f"table {table.name} has no layout: run `dynein bootstrap`")
    wanted = _wanted(settings, recorded)
    _check_layout(table.name, recorded, wanted)
    if recorded.shard_count < wanted.shard_count:
        raise LayoutMismatch(
            f"table {table.name} has {recorded.shard_count} shards, the settings say {wanted.shard_count}: "
            f"run `dynein bootstrap` to add shards, or set DYNEIN_SHARD_COUNT={recorded.shard_count} (or unset it)"
        )
    return recorded


def _wanted(settings: Settings, recorded: Layout | None) -> Layout:
    """What the settings ask for; where they are silent, what is recorded."""
    width_ms = settings.bucket_width_s * 1000 if settings.bucket_width_s is not None else None
    if recorded is None:
        count = settings.shard_count or NEW_TABLE_SHARD_COUNT
        return Layout(width_ms or NEW_TABLE_BUCKET_WIDTH_S * 1000, count, count)
    return Layout(
        width_ms or recorded.bucket_width_ms, settings.shard_count or recorded.shard_count, recorded.fifo_shard_count
    )


def _check_layout(table: str, recorded: Layout, wanted: Layout) -> None:
    if recorded.bucket_width_ms != wanted.bucket_width_ms:
        raise LayoutMismatch(
            f"table {table} has time buckets of {recorded.bucket_width_ms // 1000} s, the settings say "
            f"{wanted.bucket_width_ms // 1000} s. The width of a table's buckets never changes: "
            f"set DYNEIN_BUCKET_WIDTH_S={recorded.bucket_width_ms // 1000} (or unset it), "
            "or use another table (DYNEIN_TABLE)"
        )
    if recorded.shard_count > wanted.shard_count:
        raise LayoutMismatch(
            f"table {table} has {recorded.shard_count} shards, the settings say {wanted.shard_count}. "
            f"The shard count only grows: set DYNEIN_SHARD_COUNT={recorded.shard_count} (or unset it)"
        )


async def _describe(table: DynamoTable) -> dict[str, Any] | None:
    try:
        response = await table.run("DescribeTable", table.client.describe_table(TableName=table.name))
    except NotBootstrapped:
        return None
    return dict(response["Table"])


async def _create(table: DynamoTable) -> bool:
    request: Any = {"KeySchema": KEY_SCHEMA, "AttributeDefinitions": ATTRIBUTES, "BillingMode": "PAY_PER_REQUEST"}
    try:
        await table.run("CreateTable", table.client.create_table(TableName=table.name, **request))
    except ClientError as error:
        if error_code(error) != "ResourceInUseException":
            raise
        return False  # another bootstrap was quicker
    return True


async def _active(table: DynamoTable) -> dict[str, Any]:
    """The table's description, once it can be used."""
    for _ in range(_POLLS_MAX):
        described = await _describe(table)
        if described is not None and described["TableStatus"] in {"ACTIVE", "UPDATING"}:
            return described
        await table.clock.sleep(_POLL_S)
    raise Unavailable(
        f"table {table.name} is not active after {_POLLS_MAX * _POLL_S:.0f} s: run `dynein bootstrap` again"
    )


def _check_schema(table: str, described: dict[str, Any]) -> None:
    def by_name(rows: list[Item]) -> dict[str, Item]:
        return {row["AttributeName"]: dict(row) for row in rows}

    keys, types = by_name(described["KeySchema"]), by_name(described["AttributeDefinitions"])
    if keys != by_name(KEY_SCHEMA) or any(types.get(name) != row for name, row in by_name(ATTRIBUTES).items()):
        raise LayoutMismatch(
            f"table {table} exists with other keys than Dynein's (pk String, sk Binary): it is not Dynein's. "
            "Name another with DYNEIN_TABLE"
        )


async def _enable_ttl(table: DynamoTable) -> bool:
    response = await table.run("DescribeTimeToLive", table.client.describe_time_to_live(TableName=table.name))
    described = response["TimeToLiveDescription"]
    if described.get("TimeToLiveStatus") in {"ENABLED", "ENABLING"}:
        if described.get("AttributeName") == TTL_ATTRIBUTE:
            return False
        raise LayoutMismatch(
            f"table {table.name} expires items by attribute {described.get('AttributeName')!r}, Dynein needs "
            f"{TTL_ATTRIBUTE!r}. Turn that off, or name another table with DYNEIN_TABLE"
        )
    await table.run(
        "UpdateTimeToLive",
        table.client.update_time_to_live(
            TableName=table.name, TimeToLiveSpecification={"Enabled": True, "AttributeName": TTL_ATTRIBUTE}
        ),
    )
    return True


async def _record_layout(table: DynamoTable, settings: Settings) -> TableStep:
    """Shard records first, then the layout that counts them: whoever reads a shard count finds every record."""

    async def record() -> TableStep:
        recorded = await _recorded_layout(table)
        wanted = _wanted(settings, recorded)
        detail = f"{wanted.bucket_width_ms // 1000} s buckets, {wanted.shard_count} shards"
        if recorded is not None:
            _check_layout(table.name, recorded, wanted)
        added = await _add_missing_shards(table, wanted)
        if recorded is None:
            if await table.put_if(layout_item(wanted), NOT_THERE):
                return TableStep("layout", "created", detail)
        elif recorded == wanted:
            return TableStep("layout", "updated" if added else "verified", detail)
        else:
            values = {
                ":width": number(recorded.bucket_width_ms),
                ":seen": number(recorded.shard_count),
                ":count": number(wanted.shard_count),
                ":fifo": number(recorded.fifo_shard_count),
            }
            update = "SET shard_count = :count, fifo_shard_count = :fifo"
            if await table.update_if(layout_key(), update, COUNT_UNCHANGED, values, {}) is not None:
                return TableStep("layout", "updated", f"{detail} (before: {recorded.shard_count})")
        raise _LostRace("other bootstraps keep changing the layout: run `dynein bootstrap` again")

    return await table.retry(_RACE_TRIES).call("recording the layout", record, retry_on=(_LostRace,))


async def _recorded_layout(table: DynamoTable) -> Layout | None:
    item = await table.get(layout_key())
    return read_layout(item) if item is not None else None


async def _add_missing_shards(table: DynamoTable, wanted: Layout) -> int:
    """Write the records that are missing; how many."""
    keys = [shard_key(shard) for shard in range(wanted.shard_count)]
    there = {identity(item) for item in await table.get_many(keys)}
    missing = [
        shard_item(new_shard_record(shard, table.clock.now_ms(), wanted.bucket_width_ms))
        for shard, key in enumerate(keys)
        if identity(key) not in there
    ]
    for start in range(0, len(missing), _PUTS_AT_ONCE):
        some = missing[start : start + _PUTS_AT_ONCE]
        await asyncio.gather(*(table.put_if(item, NOT_THERE) for item in some))
    return len(missing)
