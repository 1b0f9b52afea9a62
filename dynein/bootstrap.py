"""Create or verify what Dynein needs in an AWS account: inbound queue, dead-letter queue, table. Idempotent.

Nothing that exists is changed but for queue attributes that differ, and the shard count when the settings ask for more.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from botocore.exceptions import ClientError

from dynein.clock import Clock
from dynein.dynamodb_table import bootstrap_table
from dynein.errors import Stop
from dynein.settings import Settings

if TYPE_CHECKING:
    from types_aiobotocore_dynamodb import DynamoDBClient
    from types_aiobotocore_sqs import SQSClient

RETENTION_S = 14 * 24 * 3600
"""SQS's longest: an outage of two weeks loses nothing. Tombstones outlive it (`dynein.dynamodb_store`)."""
RECEIVES_MAX = 100
"""An inbound message received this often without being finished moves to the dead-letter queue. Generous: a
crash-looping ingester or a long outage must not put good jobs there."""


class Step(NamedTuple):
    """One thing bootstrap looked after. ``outcome``: ``created``, ``updated`` or ``verified``."""

    resource: str
    outcome: str
    detail: str = ""


async def bootstrap(sqs: SQSClient, dynamodb: DynamoDBClient, settings: Settings, clock: Clock) -> list[Step]:
    """Create or verify everything. Raises `Stop` when something exists but cannot be what Dynein needs."""
    if settings.inbound_queue.endswith(".fifo") or settings.dead_letter_queue.endswith(".fifo"):
        raise Stop("inbound_queue and dead_letter_queue must be standard queues: FIFO queues cannot carry the rate")
    dead_letter_step, dead_letter_url = await _queue(
        sqs, settings.dead_letter_queue, {"MessageRetentionPeriod": str(RETENTION_S)}
    )
    arn = (await sqs.get_queue_attributes(QueueUrl=dead_letter_url, AttributeNames=["QueueArn"]))["Attributes"]
    redrive = {"deadLetterTargetArn": arn["QueueArn"], "maxReceiveCount": RECEIVES_MAX}
    inbound_step, _ = await _queue(
        sqs,
        settings.inbound_queue,
        {
            "MessageRetentionPeriod": str(RETENTION_S),
            "VisibilityTimeout": str(settings.visibility_timeout_s),
            "MaximumMessageSize": str(settings.message_bytes_max),
            "RedrivePolicy": json.dumps(redrive),
        },
    )
    table_steps = [Step(*step) for step in await bootstrap_table(dynamodb, settings, clock)]
    return [dead_letter_step, inbound_step, *table_steps]


async def _queue(sqs: SQSClient, name: str, wanted: Mapping[str, str]) -> tuple[Step, str]:
    try:
        url = (await sqs.get_queue_url(QueueName=name))["QueueUrl"]
    except ClientError as error:
        if "NonExistentQueue" not in error.response["Error"]["Code"] + error.response["Error"]["Message"] and (
            "does not exist" not in error.response["Error"]["Message"]
        ):
            raise
        url = (await sqs.create_queue(QueueName=name, Attributes=dict(wanted)))["QueueUrl"]  # type: ignore[arg-type]
        return Step(f"queue {name}", "created"), url
    found = (await sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"]))["Attributes"]
    differing = {key: value for key, value in wanted.items() if not _same(found.get(key), value)}  # type: ignore[call-overload]
    if not differing:
        return Step(f"queue {name}", "verified"), url
    await sqs.set_queue_attributes(QueueUrl=url, Attributes=differing)  # type: ignore[arg-type]
    return Step(f"queue {name}", "updated", ", ".join(sorted(differing))), url


def _same(found: str | None, wanted: str) -> bool:
    if found is None:
        return False
    if not wanted.startswith("{"):
        return found == wanted
    # Engines and AWS disagree on whether numbers inside a policy are text.
    return {k: str(v) for k, v in json.loads(found).items()} == {k: str(v) for k, v in json.loads(wanted).items()}
