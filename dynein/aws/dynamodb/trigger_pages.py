"""What a Query of triggers asks for, and what the items that it returns are. Pure, but for what it logs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dynein.aws.dynamodb.items import Item, identity, read_tombstone, read_trigger, stray_key, text
from dynein.core.keys import (
    DUE_MAX_MS,
    Kind,
    TriggerKey,
    bucket_of,
    parse_sort_key,
    partition_key,
    range_after,
    range_from,
    sort_key,
)
from dynein.core.trigger import Trigger
from dynein.core.trigger_store import Found, Page, Tombstone
from dynein.observability.events.scheduler import RECORD_UNDECODABLE

_PAST_ANY_KEY = b"\xff" * 20


def range_request(bucket: int, shard: int, from_ms: int, until_ms: int) -> Item:
    """The range of a Query. Nothing of ours is right on the upper bound, which BETWEEN includes."""
    return {
        "KeyConditionExpression": "pk = :pk AND sk BETWEEN :from AND :past",
        "ExpressionAttributeValues": {
            ":pk": text(partition_key(bucket, shard)),
            ":from": {"B": range_from(from_ms)},
            ":past": {"B": _past(until_ms)},
        },
    }


def page_of(
    items: Iterable[Mapping[str, Any]], bucket: int, shard: int, width_ms: int, *, until_ms: int, resume: bytes | None
) -> Page:
    """The page that a Query of `range_request` returned."""
    page = Page([], [], [], resume)
    past = _past(until_ms)
    for item in items:
        sk = item["sk"]["B"]
        if sk >= past:
            continue  # BETWEEN includes its upper bound; only a record that is not ours can be right on it
        try:
            key, kind = parse_sort_key(sk, shard)
        except ValueError:
            page.undecodable.append(stray_key(sk, shard))
            continue
        if bucket_of(key.due_at_ms, width_ms) != bucket:
            page.undecodable.append(key)  # in a bucket that its key does not lead to: it could never be removed
        elif kind is Kind.TOMBSTONE:
            page.tombstones.append(read_tombstone(item, key))
        elif (trigger := read_trigger(item, key)) is not None:
            page.triggers.append(trigger)
        else:
            page.undecodable.append(key)
    return page


def reached_key(sk: bytes, shard: int) -> TriggerKey:
    """The key of the last record that a Query examined, whatever it is."""
    try:
        return parse_sort_key(sk, shard)[0]
    except ValueError:
        return stray_key(sk, shard)


def found_at(key: TriggerKey, items: Sequence[Mapping[str, Any]]) -> Found:
    """What is stored at ``key``, from the items at its two places. A trigger that cannot be read is logged."""
    trigger: Trigger | None = None
    tombstone: Tombstone | None = None
    for item in items:
        if identity(item)[1] == sort_key(key, Kind.TOMBSTONE):
            tombstone = read_tombstone(item, key)
        else:
            trigger = read_trigger(item, key)
            if trigger is None:
                RECORD_UNDECODABLE.log(shard=key.shard, due_at_ms=key.due_at_ms, job_id=key.job_id.hex())
    return Found(trigger, tombstone)


def _past(until_ms: int) -> bytes:
    return range_after(until_ms) if until_ms < DUE_MAX_MS else _PAST_ANY_KEY
