"""How records look as DynamoDB items, both ways. Pure. Used in `dynein.aws.dynamodb` only.

==============  =====================  ===============  ==============================================================
record          ``pk`` (String)        ``sk`` (Binary)  attributes
==============  =====================  ===============  ==============================================================
trigger         ``t#BUCKET#SHARD``     `sort_key`       ``tk`` token, ``job`` the job's JSON text, ``reserved`` until
                                                        when a repair has it, epoch seconds (none but when stranded)
tombstone       ``t#BUCKET#SHARD``     `sort_key`       ``to`` the token that replaced it (if moved), ``ttl``
claim           ``claim#JOBID``        one zero byte    ``cid`` the create that keeps the job id, ``ttl``
shard record    ``shard#N``            one zero byte    ``owner``, ``fence``, ``beat``, ``read_mark``,
                                                        ``settled_mark``, ``hold_mark``, ``retired``, ``late``
layout          ``layout``             one zero byte    ``bucket_width_ms``, ``shard_count``, ``fifo_shard_count``
roster member   ``member#ROLE``        member's name    ``beat``, ``ttl``
ledger window   ``ledger#WIDTH#SLOT``  its start, ms    a count for each of `dynein.core.ledger.FLOWS` seen, ``ttl``
                                       (6 bytes)
==============  =====================  ===============  ==============================================================
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dynein.core.job_token import names
from dynein.core.keys import DUE_BYTES, JOB_ID_BYTES, Kind, TriggerKey, bucket_of, partition_key, sort_key
from dynein.core.shard_records import Layout, ShardRecord
from dynein.core.trigger import Trigger, check
from dynein.core.trigger_store import MARKER_TTL_S, Tombstone

Item = dict[str, Any]
"""One item or key, in DynamoDB's typed form. Built and read in `dynein.aws.dynamodb` only."""

ALONE = b"\0"
"""Sort key of a record that has its partition to itself."""
LEDGER_TTL_S = 8 * 86_400
"""How long a window of the ledger is kept after its end: a week to read it in, and a day for DynamoDB to delete it."""
MEMBER_TTL_S = 2 * 86_400
"""When a member that never left is deleted. Whether it is alive, its heartbeat shows; but the ledger wants to know for
a day, and for as long as a window takes to close, that it ended without draining (`dynein.ledger.reader`)."""


def text(value: str) -> Item:
    return {"S": value}


def number(value: int) -> Item:
    return {"N": str(value)}


def key_item(pk: str, sk: bytes) -> Item:
    return {"pk": {"S": pk}, "sk": {"B": sk}}


def record_key(key: TriggerKey, kind: Kind, bucket_width_ms: int) -> Item:
    """The item key of a trigger or its tombstone."""
    bucket = bucket_of(key.due_at_ms, bucket_width_ms)
    return key_item(partition_key(bucket, key.shard), sort_key(key, kind))


def identity(item: Mapping[str, Any]) -> tuple[str, bytes]:
    """An item's key as plain values, to match a response with its request."""
    return item["pk"]["S"], bytes(item["sk"]["B"])


def trigger_item(trigger: Trigger, bucket_width_ms: int) -> Item:
    check(trigger)
    assert names(trigger.token, trigger.key), trigger  # or it would be unreadable, and its job lost
    item = record_key(trigger.key, Kind.TRIGGER, bucket_width_ms)
    item["tk"] = {"S": trigger.token}
    item["job"] = {"S": trigger.record.decode("utf-8")}
    return item


def read_trigger(item: Mapping[str, Any], key: TriggerKey) -> Trigger | None:
    """The trigger that should be stored at ``key``, or ``None`` if the item is not one (in whatever way)."""
    try:
        token: str = item["tk"]["S"]
        record = item["job"]["S"].encode("utf-8")
    except KeyError:
        return None
    if not record or not names(token, key):
        return None
    trigger = Trigger(key, token, record)
    check(trigger)
    return trigger


def tombstone_item(tombstone: Tombstone, now_ms: int, bucket_width_ms: int) -> Item:
    item = record_key(tombstone.key, Kind.TOMBSTONE, bucket_width_ms)
    item["ttl"] = marker_ttl(tombstone.key, now_ms)
    if tombstone.moved_to is not None:
        item["to"] = {"S": tombstone.moved_to}
    return item


def read_tombstone(item: Mapping[str, Any], key: TriggerKey) -> Tombstone:
    return Tombstone(key, item["to"]["S"] if "to" in item else None)


def marker_ttl(key: TriggerKey, now_ms: int) -> Item:
    return number(max(key.due_at_ms, now_ms) // 1000 + MARKER_TTL_S)


def stray_key(sk: bytes, shard: int) -> TriggerKey:
    """The nearest to a key for a sort key that is not one: for reports. Its job id may have any length up to 12."""
    due_at_ms = int.from_bytes(sk[:DUE_BYTES].ljust(DUE_BYTES, b"\0"), "big")
    return TriggerKey(due_at_ms, sk[DUE_BYTES : DUE_BYTES + JOB_ID_BYTES], shard)


def claim_key(key: TriggerKey) -> Item:
    return key_item(f"claim#{key.job_id.hex()}", ALONE)


def shard_key(shard: int) -> Item:
    return key_item(f"shard#{shard}", ALONE)


def layout_key() -> Item:
    return key_item("layout", ALONE)


def member_partition(role: str) -> str:
    return f"member#{role}"


def ledger_partition(window_ms: int, slot: int) -> str:
    """The width is part of the key, so that windows of two widths are never added up."""
    return f"ledger#{window_ms}#{slot}"


def shard_item(record: ShardRecord) -> Item:
    """Every mark is written, so that a condition never meets a missing one."""
    item = shard_key(record.shard)
    if record.owner is not None:
        item["owner"] = text(record.owner)
    return item | {
        "fence": number(record.fence),
        "beat": number(record.heartbeat),
        "read_mark": number(record.read_mark_ms),
        "settled_mark": number(record.settled_mark_ms),
        "hold_mark": number(record.hold_mark_ms),
        "retired": number(record.retired_before),
        "late": number(record.late_writes),
    }


def read_shard(item: Mapping[str, Any]) -> ShardRecord:
    return ShardRecord(
        shard=int(item["pk"]["S"].removeprefix("shard#")),
        owner=item["owner"]["S"] if "owner" in item else None,
        fence=int(item["fence"]["N"]),
        heartbeat=int(item["beat"]["N"]),
        read_mark_ms=int(item["read_mark"]["N"]),
        # Older records have none: then it is not known how long the read mark has been there.
        settled_mark_ms=int(item.get("settled_mark", item["read_mark"])["N"]),
        hold_mark_ms=int(item["hold_mark"]["N"]),
        retired_before=int(item["retired"]["N"]),
        late_writes=int(item["late"]["N"]),
    )


def layout_item(layout: Layout) -> Item:
    return {
        **layout_key(),
        "bucket_width_ms": number(layout.bucket_width_ms),
        "shard_count": number(layout.shard_count),
        "fifo_shard_count": number(layout.fifo_shard_count),
    }


def read_layout(item: Mapping[str, Any]) -> Layout:
    # Older tables have no count for FIFO queues, until their shard count is raised.
    fifo = item.get("fifo_shard_count", item["shard_count"])
    return Layout(int(item["bucket_width_ms"]["N"]), int(item["shard_count"]["N"]), int(fifo["N"]))
