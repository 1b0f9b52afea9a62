"""What a copy of the trigger store is made of, in no order: for readers of an export of the table."""

from __future__ import annotations

from typing import NamedTuple

from dynein.core.keys import TriggerKey
from dynein.core.shard_records import Layout, ShardRecord
from dynein.core.trigger import Trigger
from dynein.core.trigger_store import Tombstone


class StoredTrigger(NamedTuple):
    """A trigger, and the bucket that it is stored in."""

    bucket: int
    trigger: Trigger


class StoredTombstone(NamedTuple):
    """A tombstone, and the bucket that it is stored in."""

    bucket: int
    tombstone: Tombstone


class Undecodable(NamedTuple):
    """A record in a bucket that is neither; ``key`` is the nearest to one."""

    bucket: int
    key: TriggerKey


StoredRecord = StoredTrigger | StoredTombstone | Undecodable | ShardRecord | Layout
