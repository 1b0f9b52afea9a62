"""What a process works on, as the roles see it: protocols, and what every process of one deployment has in common."""

from __future__ import annotations

from typing import NamedTuple

from dynein.core.ledger import LedgerStore
from dynein.core.queues import Queues
from dynein.core.shard_records import Layout, Roster, ShardRecords
from dynein.core.trigger_store import TriggerStore


class Ports(NamedTuple):
    """What one process works on. `dynein.aws` provides them on SQS and DynamoDB, `dynein.testing` in memory."""

    queues: Queues
    triggers: TriggerStore
    shards: ShardRecords
    roster: Roster
    ledger: LedgerStore


class Deployment(NamedTuple):
    """What ``dynein bootstrap`` has made, as found at the start of a process."""

    layout: Layout
    inbound_url: str
    dead_letter_url: str
    own_bytes_max: int
    """The largest message that both of these queues take."""
