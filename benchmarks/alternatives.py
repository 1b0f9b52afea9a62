"""The calls and items of one delayed job in other services: counted from source code and price lists, not measured."""

from __future__ import annotations

from typing import NamedTuple


class Usage(NamedTuple):
    """What one job causes, as billed. ``requests``: as made."""

    sqs_requests: float = 0.0
    dynamodb_requests: float = 0.0
    write_units: float = 0.0
    read_units: float = 0.0
    scheduler_invocations: float = 0.0
    transitions: float = 0.0

    @property
    def requests(self) -> float:
        return self.sqs_requests + self.dynamodb_requests


_QUERY_LIMIT = 10
_ITEM_KB = 0.5
"""A schedule: the whole job spec as JSON, its token, shard and status. Assumed small, in its favour."""

ORIGINAL_DYNEIN = Usage(
    sqs_requests=(
        1  # Scheduler.createJob -> AsyncSqsClientImpl.add: SendMessage to the inbound queue
        + 1  # ManagedInboundJobQueueConsumer.doRun -> AsyncSqsClientImpl.getMessage: ReceiveMessage of 1
        + 1  # AsyncSqsClientImpl.consumePostProcess -> deleteMessage: DeleteMessage
        + 1  # PartitionWorker.dispatchToDestination -> AsyncSqsClientImpl.add: SendMessage to the destination
    ),
    dynamodb_requests=(
        1  # DynamoDBScheduleManager.addJob: PutItem
        + 1 / _QUERY_LIMIT  # DynamoDBScheduleManager.getOverdueJobs: Query, DynamoDBConfiguration.queryLimit = 10
        + 1  # DynamoDBScheduleManager.updateStatus SCHEDULED -> ACQUIRED: UpdateItem under a condition
        + 1  # DynamoDBScheduleManager.deleteDispatchedJob: DeleteItem under a condition
    ),
    write_units=1 + 1 + 1,
    # Eventually consistent: half a unit for each 4 KB, at least half a unit a Query.
    read_units=max(0.5, 0.5 * _QUERY_LIMIT * _ITEM_KB / 4) / _QUERY_LIMIT,
)
"""Airbnb's Dynein (Java, github.com/airbnb/dynein at 2b3164a), a job that is scheduled and sent without any failure.

At load, when every Query is full. Idle, ``PartitionWorker.scanGroup`` makes a Query a second for each partition.
"""

EVENTBRIDGE_SCHEDULER = Usage(sqs_requests=1, scheduler_invocations=1)
"""One invocation, whose target is SQS SendMessage; CreateSchedule is free, ActionAfterCompletion=DELETE too."""

STEP_FUNCTIONS_WAIT = Usage(sqs_requests=1, transitions=2)
"""A standard workflow of two steps, Wait and SendMessage; its start and end are assumed free, in its favour."""
