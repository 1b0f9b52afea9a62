"""What the API measures."""

from __future__ import annotations

from dynein.observability.metrics.declaring import Declarer

REQUEST_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class ApiMetrics:
    """Jobs and requests at the front door."""

    def __init__(self, declare: Declarer) -> None:
        self.accepted = declare.counter(
            "dynein_jobs_accepted_total",
            "Jobs accepted by the API: SQS has acknowledged each",
            {"policy": "`IMMEDIATE`, `SQS_DELAYED`, `SCHEDULED`"},
            roles="api",
            look="you want to know what comes in. `IMMEDIATE` and `SQS_DELAYED` jobs are in SQS's hands from then on",
        )
        self.refused = declare.counter(
            "dynein_jobs_refused_total",
            "Jobs refused by the API",
            {"reason": "the code of the problem that the submitter was told"},
            roles="api",
            look="submitters complain. `overloaded`, `throttled` and `unavailable` are ours, the rest is theirs",
        )
        self.cancelled = declare.counter(
            "dynein_jobs_cancelled_total",
            "Cancel requests, by outcome",
            {"outcome": "`cancelled`, `failed`, or the code of the conflict (`too-late`, `moved`, ...)"},
            roles="api",
            look="a cancelled job arrives: only `cancelled` is a promise",
        )
        self.moved = declare.counter(
            "dynein_jobs_moved_total",
            "Move requests, by outcome",
            {"outcome": "`moved`, `failed`, or the code of the conflict"},
            roles="api",
            look="submitters cannot move their jobs",
        )
        self.requests = declare.counter(
            "dynein_api_requests_total",
            "HTTP requests answered",
            {"route": "the route's template, `other` for a path or method that there is not", "status": "HTTP status"},
            roles="all",
            look="submitters get errors: 4xx are theirs, 429 and 503 say that a bound of ours is reached",
        )
        self.shed = declare.counter(
            "dynein_api_requests_shed_total",
            "HTTP requests refused by their heads, before any work was done for them",
            {"reason": "`overload` (503: more is asked than this process can do), `caller` (429: its own rate)"},
            roles="all",
            look="submitters get 429 or 503. `overload`: run more API processes, or give callers a rate",
        )
        self.request_seconds = declare.histogram(
            "dynein_api_request_seconds",
            "From an HTTP request's head to the last byte of its answer",
            {"route": "as for `dynein_api_requests_total`"},
            buckets=REQUEST_BUCKETS_S,
            roles="all",
            look="submits are slow. Most of it is one SQS call: compare `dynein_aws_call_seconds`",
        )
