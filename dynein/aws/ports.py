"""A process's ports on SQS and DynamoDB."""

from __future__ import annotations

from dynein.aws.clients import Clients
from dynein.aws.dynamodb.ledger import SLOTS, DynamoLedger
from dynein.aws.dynamodb.roster import DynamoRoster
from dynein.aws.dynamodb.shards import DynamoShardRecords
from dynein.aws.dynamodb.triggers import DynamoTriggerStore
from dynein.aws.sqs import SqsQueues
from dynein.core.ports import Ports
from dynein.core.shard_records import Layout
from dynein.runtime.context import Context
from dynein.settings import Settings


def aws_ports(aws: Clients, layout: Layout, context: Context, settings: Settings) -> Ports:
    """Over open clients, on the table and queues that the settings name. ``layout`` is the table's own."""
    clock, rng, telemetry, _ = context
    table = settings.table
    return Ports(
        queues=aws_queues(aws, context),
        triggers=DynamoTriggerStore(aws.dynamodb, table, clock, telemetry, layout.bucket_width_ms, rng=rng),
        shards=DynamoShardRecords(aws.dynamodb, table, clock, telemetry, rng=rng),
        roster=DynamoRoster(aws.dynamodb, table, clock, telemetry),
        ledger=aws_ledger(aws, context, settings),
    )


def aws_queues(aws: Clients, context: Context) -> SqsQueues:
    """The queues alone, for what needs no table."""
    return SqsQueues(aws.sqs, context.telemetry)


def aws_ledger(aws: Clients, context: Context, settings: Settings) -> DynamoLedger:
    """The ledger alone, for what needs neither queues nor the table's layout."""
    return DynamoLedger(
        aws.dynamodb,
        settings.table,
        context.clock,
        context.telemetry,
        settings.ledger_window_s * 1000,
        slot=context.rng.randrange(SLOTS),
    )
