"""What calls to AWS measure: how many, how they ended, how long they took, what they cost."""

from __future__ import annotations

from dynein.observability.metrics.declaring import Declarer

CALL_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
OPERATION = "AWS's name of it"


class AwsMetrics:
    """SQS and DynamoDB as their callers see them."""

    def __init__(self, declare: Declarer) -> None:
        self.aws_calls = declare.counter(
            "dynein_aws_calls_total",
            "Calls to SQS and DynamoDB. (Entries that fail inside an answered SQS batch: `dynein_send_failures_total`)",
            {
                "operation": OPERATION,
                "outcome": "`ok`; `throttled`, in whole or in part; `conflict`: a condition did not hold, which is a "
                "race lost and no error; `refused`: for what we asked or who we are; `failed`: an error on AWS's side "
                "or of the network; `timeout`",
            },
            roles="all",
            look="anything is slow or fails: whose fault is it? Each call is also what AWS bills for",
        )
        self.aws_call_seconds = declare.histogram(
            "dynein_aws_call_seconds",
            "Wall time of calls to SQS and DynamoDB, however they ended; `ReceiveMessage` waits for messages in it",
            {"operation": OPERATION},
            buckets=CALL_BUCKETS_S,
            roles="all",
            look="jobs or submits are slow: is it AWS, the network, or a busy process (all operations alike)?",
        )
        self.capacity_units = declare.counter(
            "dynein_capacity_units_total",
            "Capacity units consumed, as DynamoDB reports them. It reports none for a call that it refuses, such as a "
            "condition that did not hold, though it bills that; emulators may report none at all",
            {"operation": OPERATION, "kind": "`read`, `write`"},
            roles="all",
            look="the bill rises, or DynamoDB throttles: which operation uses it up?",
        )
        self.clock_offset = declare.gauge(
            "dynein_clock_offset_seconds",
            "This machine's wall clock minus AWS's, by the `Date` of an answer a second: whole seconds, so that "
            "anything within 1 s is noise. Signed; of several workers, which share a clock, the latest look",
            combined="livemostrecent",
            roles="all",
            look="jobs are early (the clock is ahead) or late (behind), or AWS refuses signatures",
        )
