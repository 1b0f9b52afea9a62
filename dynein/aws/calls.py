"""One bound and one count for each call to AWS: how it ended, how long it took, what it consumed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from botocore.exceptions import ClientError, ConnectTimeoutError, ReadTimeoutError
from prometheus_client import Counter, Histogram

from dynein.aws.endpoints import Reach
from dynein.aws.error_codes import RESULT_CODES
from dynein.aws.errors import aws_error, error_code
from dynein.errors import DyneinError, Throttled, Unavailable
from dynein.observability.events.process import AWS_THROTTLED
from dynein.observability.telemetry import Telemetry

if TYPE_CHECKING:
    from types_aiobotocore_dynamodb import DynamoDBClient
    from types_aiobotocore_sqs import SQSClient

ResultT = TypeVar("ResultT")

OK = "ok"
THROTTLED = "throttled"
CONFLICT = "conflict"
REFUSED = "refused"
FAILED = "failed"
TIMEOUT = "timeout"
_READS = frozenset({"BatchGetItem", "GetItem", "Query", "Scan"})
"""Operations whose capacity units are read units; those of all others are write units."""


def outcome_of(error: Exception, meant: DyneinError | None) -> str:
    """How a call that raised ``error`` ended; ``meant`` is what that is to us (`dynein.aws.errors.aws_error`)."""
    if isinstance(meant, Throttled):
        return THROTTLED
    if error_code(error) in RESULT_CODES:
        return CONFLICT
    if isinstance(error, (TimeoutError, ConnectTimeoutError, ReadTimeoutError)):
        return TIMEOUT
    if isinstance(meant, Unavailable) or not isinstance(error, ClientError):
        return FAILED
    return REFUSED


class _Operation:
    """One operation's metrics, looked up once: finding a metric by its labels costs as much as the count itself."""

    def __init__(self, name: str, telemetry: Telemetry) -> None:
        self.ok: Counter = telemetry.aws_calls.labels(name, OK)
        self.throttled: Counter = telemetry.aws_calls.labels(name, THROTTLED)
        self.seconds: Histogram = telemetry.aws_call_seconds.labels(name)
        self._name = name
        self._capacity_units = telemetry.capacity_units
        self._units: Counter | None = None

    def succeeded(self, response: Mapping[str, Any]) -> None:
        """Count a call that succeeded. A batch of which a part is left undone was throttled."""
        left = response.get("UnprocessedItems") or response.get("UnprocessedKeys")
        if left:
            self.throttled.inc()
            AWS_THROTTLED.log(operation=self._name, error="a part of the batch was left undone")
        else:
            self.ok.inc()
        consumed = response.get("ConsumedCapacity")
        if consumed:
            if self._units is None:
                self._units = self._capacity_units.labels(self._name, "read" if self._name in _READS else "write")
            self._units.inc(units_of(consumed))


def units_of(consumed: Any) -> float:  # noqa: ANN401 - as DynamoDB reports it
    """Capacity units of a ``ConsumedCapacity``: a batch reports a list, by table; anything else, one."""
    reports = consumed if isinstance(consumed, list) else [consumed]
    return sum(float(report.get("CapacityUnits") or 0.0) for report in reports)


class AwsCalls:
    """Makes one client's calls: bounds each in time, counts it, and turns the SDK's errors into ours."""

    def __init__(self, client: DynamoDBClient | SQSClient, telemetry: Telemetry) -> None:
        config: Any = client.meta.config  # botocore sets its attributes from a table, unseen by type checkers
        self._timeout_s = float(config.read_timeout)
        self._reach: Reach | None = getattr(client, "reach", None)  # set by `dynein.aws.clients`
        self._telemetry = telemetry
        self._operations: dict[str, _Operation] = {}

    async def run(self, operation: str, call: Awaitable[ResultT], *, timeout_s: float | None = None) -> ResultT:
        """Await ``call``, for at most ``timeout_s`` seconds (default: the client's read timeout), in all.

        The SDK's own timeouts bound only the silence between two reads, and nothing bounds the wait for a free
        connection. Raises `Throttled`, `Unavailable`, `NotSent` where nothing was sent, `AccessDenied`,
        `NotBootstrapped`; any other error as it is.
        """
        metrics = self._operations.get(operation)
        if metrics is None:
            metrics = self._operations[operation] = _Operation(operation, self._telemetry)
        now = asyncio.get_running_loop().time  # the clock that the time bound goes by
        began = now()
        try:
            async with asyncio.timeout(timeout_s or self._timeout_s):
                response = await call
        except Exception as error:
            metrics.seconds.observe(now() - began)
            meant = aws_error(operation, error, self._reach)
            outcome = outcome_of(error, meant)
            self._telemetry.aws_calls.labels(operation, outcome).inc()
            if outcome == THROTTLED:
                AWS_THROTTLED.log(operation=operation, error=str(error))
            if meant is None:
                raise
            raise meant from error
        metrics.seconds.observe(now() - began)
        metrics.succeeded(response if isinstance(response, dict) else {})
        return response
