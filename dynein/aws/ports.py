"""A process's ports on SQS and DynamoDB."""

from __future__ import annotations

from dynein.aws.clients import Clients
from dynein.aws.dynamodb.ledger import SLOTS, DynamoLedger
from dynein.aws.dynamodb.roster import DynamoRoster
from dynein.aws.dynamodb.shards import DynamoShardRecords
from dynein.aws.dynamodb.table import DynamoTable
from dynein.aws.dynamodb.triggers import DynamoTriggerStore
from dynein.aws.sqs import SqsQueues
from dynein.core.ports import Ports
from dynein.core.shard_records import Layout
from dynein.runtime.context import Context
from dynein.settings import Settings


def aws_table(aws: Clients, context: Context, settings: Settings) -> DynamoTable:
    """The table that the settings name."""
    return DynamoTable(aws.dynamodb, settings.table, context)


def aws_ports(aws: Clients, table: DynamoTable, layout: Layout, context: Context, settings: Settings) -> Ports:
    """Over open clients, on ``table`` and the queues that the settings name. ``layout`` is the table's own."""
    return Ports(
        queues=aws_queues(aws, context, settings),
        triggers=DynamoTriggerStore(table, layout.bucket_width_ms),
        shards=DynamoShardRecords(table),
        roster=DynamoRoster(table),
        ledger=aws_ledger(table, context, settings),
    )


def aws_queues(aws: Clients, context: Context, settings: Settings) -> SqsQueues:
    """The queues alone, for what needs no table."""
    return SqsQueues(aws.sqs, context.telemetry, settings.own_queues)


def aws_ledger(table: DynamoTable, context: Context, settings: Settings) -> DynamoLedger:
    """The ledger alone, for what needs neither queues nor the table's layout."""
    return DynamoLedger(table, settings.ledger_window_s * 1000, slot=context.rng.randrange(SLOTS))
