"""Create or verify what Dynein needs in an AWS account: inbound queue, dead-letter queue, table. Idempotent.

Nothing that exists is changed but for queue attributes that differ, and the shard count when the settings ask for more.
Resource policies and KMS keys are neither made nor touched: they are the account's, and name its roles (``docs/iam``).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from botocore.exceptions import ClientError

from dynein.aws.calls import AwsCalls
from dynein.aws.clients import Clients
from dynein.aws.dynamodb.layout import bootstrap_table
from dynein.aws.errors import error_code, queue_error
from dynein.aws.ports import aws_table
from dynein.core.queue_address import is_fifo
from dynein.core.queues import MESSAGE_BYTES_MAX
from dynein.errors import FatalError, UnknownQueue
from dynein.runtime.context import Context
from dynein.settings import Settings

if TYPE_CHECKING:
    from types_aiobotocore_sqs import SQSClient

RETENTION_S = 14 * 24 * 3600
"""SQS's longest: an outage of two weeks loses nothing. Tombstones outlive it (`dynein.aws.dynamodb.triggers`)."""
RECEIVES_MAX = 100
"""An inbound message received this often without being finished moves to the dead-letter queue. Generous: a
crash-looping ingester or a long outage must not put good jobs there."""


_SIZE = "MaximumMessageSize"
_SIZES = (MESSAGE_BYTES_MAX, 262_144)
"""What our queues are to take, in bytes: as much as SQS allows. On its way a job takes some bytes more than the message
that is delivered, and one that its destination queue takes must not be too large for ours. Some emulators refuse the
first and know only what was SQS's limit until 2025."""


class Step(NamedTuple):
    """One thing that bootstrap has taken care of. ``outcome``: ``created``, ``updated`` or ``verified``."""

    resource: str
    outcome: str
    detail: str = ""


async def bootstrap(aws: Clients, settings: Settings, context: Context) -> list[Step]:
    """Create or verify everything.

    Raises `FatalError` when something exists but cannot be what Dynein needs, or AWS refuses it; `Retryable` when AWS
    does not respond. What was done until then stays done, and is verified next time.
    """
    if is_fifo(settings.inbound_queue) or is_fifo(settings.dead_letter_queue):
        raise FatalError(
            "inbound_queue and dead_letter_queue must be standard queues: FIFO queues cannot carry the rate"
        )
    queues = _Queues(aws.sqs, context)
    try:
        dead_letter_step, dead_letter_url = await queues.ensure_largest(
            settings.dead_letter_queue, {"MessageRetentionPeriod": str(RETENTION_S)}
        )
        redrive = {
            "deadLetterTargetArn": (await queues.attributes(dead_letter_url))["QueueArn"],
            "maxReceiveCount": RECEIVES_MAX,
        }
        inbound_step, _ = await queues.ensure_largest(
            settings.inbound_queue,
            {
                "MessageRetentionPeriod": str(RETENTION_S),
                "VisibilityTimeout": str(settings.visibility_timeout_s),
                "RedrivePolicy": json.dumps(redrive),
            },
        )
        table_steps = [Step(*step) for step in await bootstrap_table(aws_table(aws, context, settings), settings)]
    except ClientError as error:
        # What has no meaning of its own to us: a name that AWS does not take, a queue deleted a moment ago.
        message = error.response["Error"].get("Message", "")
        raise FatalError(f"AWS refused {error.operation_name}: {error_code(error)}: {message}") from error
    return [dead_letter_step, inbound_step, *table_steps]


class _Queues:
    def __init__(self, sqs: SQSClient, context: Context) -> None:
        self._sqs = sqs
        self._calls = AwsCalls(sqs, context.telemetry)

    async def ensure_largest(self, name: str, wanted: Mapping[str, str]) -> tuple[Step, str]:
        """`ensure`, for a queue of the largest messages that the service allows."""
        for size in _SIZES[:-1]:
            try:
                return await self.ensure(name, {**wanted, _SIZE: str(size)})
            except ClientError as error:
                if _SIZE not in error.response["Error"].get("Message", ""):
                    raise
        return await self.ensure(name, {**wanted, _SIZE: str(_SIZES[-1])})

    async def ensure(self, name: str, wanted: Mapping[str, str]) -> tuple[Step, str]:
        """What was done, and the queue's URL."""
        url = await self._url(name)
        if url is None:
            attributes: Any = dict(wanted)
            made = await self._calls.run("CreateQueue", self._sqs.create_queue(QueueName=name, Attributes=attributes))
            return Step(f"queue {name}", "created"), made["QueueUrl"]
        found = await self.attributes(url)
        differing: Any = {key: value for key, value in wanted.items() if not _same(found.get(key), value)}
        if not differing:
            return Step(f"queue {name}", "verified"), url
        await self._calls.run("SetQueueAttributes", self._sqs.set_queue_attributes(QueueUrl=url, Attributes=differing))
        changes = (f"{key} {found.get(key, 'unset')} -> {value}" for key, value in sorted(differing.items()))
        return Step(f"queue {name}", "updated", ", ".join(changes)), url

    async def attributes(self, url: str) -> Mapping[str, str]:
        response = await self._calls.run(
            "GetQueueAttributes", self._sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])
        )
        return {str(key): value for key, value in response["Attributes"].items()}

    async def _url(self, name: str) -> str | None:
        try:
            response = await self._calls.run("GetQueueUrl", self._sqs.get_queue_url(QueueName=name))
        except ClientError as error:
            if isinstance(queue_error(name, "GetQueueUrl", error), UnknownQueue):
                return None
            raise
        return response["QueueUrl"]


def _same(found: str | None, wanted: str) -> bool:
    if found is None:
        return False
    if not wanted.startswith("{"):
        return found == wanted
    # Engines and AWS disagree on whether numbers inside a policy are text.
    return {k: str(v) for k, v in json.loads(found).items()} == {k: str(v) for k, v in json.loads(wanted).items()}
