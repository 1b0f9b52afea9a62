"""Metrics of calls to AWS: how many, with which outcome, how long they took, what they cost."""

from __future__ import annotations

from dynein.observability.metrics.declaring import Declarer

CALL_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
OPERATION = "the operation, by AWS's name"


class AwsMetrics:
    """Calls to SQS and DynamoDB, measured at the caller."""

    def __init__(self, declare: Declarer) -> None:
        self.aws_calls = declare.counter(
            "dynein_aws_calls_total",
            "Calls to SQS and DynamoDB. (Entries that fail in an SQS batch that succeeds as a whole are in "
            "`dynein_send_failures_total`)",
            {
                "operation": OPERATION,
                "outcome": "`ok`; `throttled`: all or part of it; `conflict`: a condition of a conditional write did "
                "not hold, an ordinary outcome; `refused`: the request was invalid or not permitted; `failed`: an "
                "error of AWS or of the network; `timeout`",
            },
            roles="all",
            look="anything is slow or fails, to see whether AWS is the cause. AWS bills for each of these calls",
        )
        self.aws_call_seconds = declare.histogram(
            "dynein_aws_call_seconds",
            "Duration of calls to SQS and DynamoDB, whatever their outcome; that of `ReceiveMessage` includes its wait "
            "for messages",
            {"operation": OPERATION},
            buckets=CALL_BUCKETS_S,
            roles="all",
            look="jobs or submits are slow: if all operations are slow alike, the network or a busy process is the "
            "cause, otherwise AWS",
        )
        self.capacity_units = declare.counter(
            "dynein_capacity_units_total",
            "Capacity units consumed, as DynamoDB reports them. It reports none for a call that fails, such as one "
            "whose condition did not hold, though it bills it; emulators may report none at all",
            {"operation": OPERATION, "kind": "`read`, `write`"},
            roles="all",
            look="the bill rises, or DynamoDB throttles: it shows which operation uses the capacity",
        )
        self.clock_offset = declare.gauge(
            "dynein_clock_offset_seconds",
            "This machine's wall clock minus AWS's, from the `Date` header of one response a second. The header has "
            "whole seconds, so values within 1 s are noise. Signed; of several workers, which share a clock, the "
            "latest value",
            combined="livemostrecent",
            roles="all",
            look="jobs are early (the clock is ahead) or late (behind), or AWS rejects signatures",
        )
