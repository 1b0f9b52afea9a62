"""Metrics of the API."""

from __future__ import annotations

from dynein.observability.metrics.declaring import Declarer

REQUEST_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class ApiMetrics:
    """Jobs and HTTP requests."""

    def __init__(self, declare: Declarer) -> None:
        self.accepted = declare.counter(
            "dynein_jobs_accepted_total",
            "Jobs accepted by the API, that is acknowledged by SQS",
            {"policy": "`IMMEDIATE`, `SQS_DELAYED`, `SCHEDULED`"},
            roles="api",
            look="you want to know how much is submitted. SQS holds `IMMEDIATE` and `SQS_DELAYED` jobs from then on",
        )
        self.refused = declare.counter(
            "dynein_jobs_refused_total",
            "Jobs rejected by the API",
            {"reason": "the `code` of the problem document in the response"},
            roles="api",
            look="submitters report rejected jobs. `overloaded`, `throttled` and `unavailable` are failures of Dynein "
            "or AWS, all others are errors in the request",
        )
        self.warned = declare.counter(
            "dynein_job_warnings_total",
            "Jobs that were accepted with a warning in the response",
            {
                "warning": "`queue-delays-messages`: a FIFO queue with a delay of its own; `out-of-order`: a token "
                "that was prepared without queue and message group; `same-deduplication-id`: SQS drops it or another",
                "queue": "destination queue, by name; `other` beyond the first 100 of a process",
            },
            roles="api",
            look="jobs of a FIFO queue are late by the same time, always (set its `DelaySeconds` to 0, or submit with "
            "`allow_for_queue_delay`), or not in order",
        )
        self.cancelled = declare.counter(
            "dynein_jobs_cancelled_total",
            "Cancel requests, by outcome",
            {"outcome": "`cancelled`, `failed`, or the code of the conflict (`too-late`, `moved`, ...)"},
            roles="api",
            look="a job arrives that was to be cancelled: only the outcome `cancelled` means that it is not delivered",
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
            "HTTP requests that got a response",
            {"route": "the route's template; `other` for an unknown path or method", "status": "HTTP status"},
            roles="all",
            look="submitters get errors: 4xx is an error in the request; 429 means that AWS throttles or that a "
            "rate is exceeded, 503 that a bound of the process is reached or that AWS does not respond",
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
            "Time from an HTTP request's head to the last byte of its response",
            {"route": "as for `dynein_api_requests_total`"},
            buckets=REQUEST_BUCKETS_S,
            roles="all",
            look="submits are slow. Most of the time is one SQS call: compare `dynein_aws_call_seconds`",
        )
