"""The lower half of the dashboard, causes: failures, shard ownership, the API, AWS and its cost, the processes."""

from __future__ import annotations

from k8s.monitoring.grafana import Panel, Query, Row, lines
from k8s.monitoring.promql import PROCESS, QUEUE, highest, or_none, quantile, rate

# USD; us-east-1, on demand, without free tier. benchmarks/prices.toml has source and date.
USD_SQS_REQUEST = 0.40e-6
USD_WRITE_UNIT = 0.625e-6
USD_READ_UNIT = 0.125e-6
MACHINE = f'job="dynein", {PROCESS}'
"""For metrics that every Prometheus target has."""
SQS_CALLS = "SendMessage.*|ReceiveMessage|DeleteMessage.*|ChangeMessageVisibility.*|GetQueue.*"


def failures() -> Row:
    return Row(
        "Failures",
        [
            lines(
                "Failed sends by remedy",
                "Sends to destination queues. retry: the send is retried; reject: the message is invalid and is "
                "dead-lettered; stop: operator action required (permissions, a missing queue).",
                Query(rate("remedy, code", "dynein_send_failures_total", QUEUE), "{{remedy}}: {{code}}"),
                unit="cps",
                stacked=True,
            ),
            lines(
                "Failed sends by destination",
                "A queue that is here but not in “Sent by destination” receives nothing at all.",
                Query(f"topk(12, {rate('queue', 'dynein_send_failures_total', QUEUE)})", "{{queue}}"),
                unit="cps",
                stacked=True,
            ),
            lines(
                "Dead letters",
                "Messages in the dead-letter queue, and jobs that went there in the last hour, by destination.",
                Query(highest("", "dynein_dead_letter_messages"), "in the queue now"),
                Query(
                    f"sum by (queue) (increase(dynein_jobs_dead_lettered_total{{{QUEUE}}}[1h]))", "last hour: {{queue}}"
                ),
            ),
            lines(
                "Rejected by the API",
                "Jobs rejected, by problem code: invalid input (4xx), or a bound of Dynein or a failure of AWS (429, "
                "503); and jobs accepted with a warning.",
                Query(rate("reason", "dynein_jobs_refused_total"), "{{reason}}"),
                Query(rate("warning, queue", "dynein_job_warnings_total"), "warning: {{warning}} {{queue}}"),
                unit="cps",
                stacked=True,
            ),
            lines(
                "Internal retries",
                "Inbound messages that could not be deleted, kept invisible or made visible again, and triggers stored "
                "behind their shard's read mark. Harmless when rare; many mean that AWS or the machine is slow.",
                Query(
                    or_none(rate("operation", "dynein_inbound_failures_total"), "operation"), "inbound: {{operation}}"
                ),
                Query(rate("", "dynein_late_writes_total"), "late writes"),
                unit="cps",
            ),
            lines(
                "AWS calls that failed",
                "By operation and outcome. throttled; failed: an error of AWS or of the network; timeout; refused: the "
                "request was invalid or not permitted. conflict: a conditional write whose condition did not hold, "
                "which is normal.",
                Query(
                    rate("operation, outcome", "dynein_aws_calls_total", f'{PROCESS}, outcome!="ok"'),
                    "{{operation}}: {{outcome}}",
                ),
                unit="cps",
                stacked=True,
            ),
        ],
    )


def owners() -> Row:
    return Row(
        "Shard ownership",
        [
            lines(
                "Shards by owner",
                "Each dispatcher leases its fair share; together they lease all shards.",
                Query(f"sum by (instance) (dynein_leases_held{{{PROCESS}}})", "{{instance}}"),
                Query(highest("", "dynein_shards"), "all shards"),
            ),
            lines(
                "Shards without owner",
                "Shards whose lease no dispatcher renews. Normal for seconds after a dispatcher has died; for longer: "
                "there are too few dispatchers.",
                Query(highest("", "dynein_shards_unowned"), "unowned"),
                limit=1,
            ),
            lines(
                "Leases taken, released, lost",
                "Taken and released: processes start and stop. Lost without that: a process is frozen, or DynamoDB "
                "does not respond in time.",
                Query(rate("event", "dynein_lease_events_total"), "{{event}}"),
                unit="cps",
            ),
        ],
    )


def api() -> Row:
    return Row(
        "API",
        [
            lines(
                "Requests by status",
                "429: AWS throttles, and the caller is asked to slow down. 503: a bound of the process is reached, or "
                "AWS does not respond. Refused: by their heads, because of all callers' load or their own caller's.",
                Query(rate("status", "dynein_api_requests_total"), "{{status}}"),
                Query(rate("reason", "dynein_api_requests_shed_total"), "refused: {{reason}}"),
                unit="reqps",
                stacked=True,
            ),
            lines(
                "Requests by route",
                "",
                Query(rate("route", "dynein_api_requests_total"), "{{route}}"),
                unit="reqps",
                stacked=True,
            ),
            lines(
                "Response time, p99",
                "A submit waits for SQS's acknowledgement, so this is never below “AWS calls, p99”.",
                Query(quantile(0.99, "dynein_api_request_seconds", "route"), "{{route}}"),
                unit="s",
                log=True,
            ),
        ],
    )


def aws() -> Row:
    calls = rate("", "dynein_aws_calls_total", f'{PROCESS}, operation=~"{SQS_CALLS}"')
    throttled = rate("operation", "dynein_aws_calls_total", f'{PROCESS}, outcome="throttled"')

    def units(kind: str) -> str:
        return rate("", "dynein_capacity_units_total", f'{PROCESS}, kind="{kind}"')

    return Row(
        "AWS, and what it costs",
        [
            lines(
                "AWS calls, p99",
                "Without ReceiveMessage, which waits for messages. If one service is slow, AWS is the cause; if both "
                "are, the network, or a process has no CPU left.",
                Query(
                    quantile(0.99, "dynein_aws_call_seconds", "operation", f'{PROCESS}, operation!~"ReceiveMessage.*"'),
                    "{{operation}}",
                ),
                unit="s",
                log=True,
            ),
            lines(
                "AWS calls",
                "",
                Query(rate("operation", "dynein_aws_calls_total"), "{{operation}}"),
                unit="reqps",
                stacked=True,
            ),
            lines(
                "Throttled calls",
                "DynamoDB: raise the table's capacity, or wait until on-demand capacity adapts; if one partition is "
                "hot, add shards. SQS: usually a FIFO queue without high throughput.",
                Query(
                    or_none(throttled, "operation"),
                    "{{operation}}",
                ),
                unit="cps",
            ),
            lines(
                "Capacity units",
                "Units a second, as DynamoDB reports them. A partition key takes 1,000 write units a second.",
                Query(rate("operation, kind", "dynein_capacity_units_total"), "{{operation}} {{kind}}"),
                unit="cps",
                stacked=True,
            ),
            lines(
                "Cost an hour, estimate",
                "USD at list prices of us-east-1 on demand, each SQS request counted as one chunk of 64 KiB; without "
                "storage, transfer and CloudWatch.",
                Query(f"{calls} * 3600 * {USD_SQS_REQUEST:.3g}", "SQS"),
                Query(f"{units('write')} * 3600 * {USD_WRITE_UNIT:.3g}", "DynamoDB writes"),
                Query(f"{units('read')} * 3600 * {USD_READ_UNIT:.3g}", "DynamoDB reads"),
                unit="currencyUSD",
                stacked=True,
            ),
            _clock(),
        ],
    )


def _clock() -> Panel:
    return lines(
        "Clock offset",
        "Each process's clock minus AWS's, accurate to about a second. Jobs are sent by the process's clock.",
        Query(f"max by (instance) (abs(dynein_clock_offset_seconds{{{PROCESS}}}))", "{{instance}}"),
        unit="s",
        limit=2,
    )


def processes() -> Row:
    return Row(
        "Processes",
        [
            lines(
                "Up",
                "1: Prometheus reaches it. 0: down, frozen or cut off.",
                Query(f"max by (instance) (up{{{MACHINE}}})", "{{instance}}"),
                width=4,
            ),
            lines(
                "Versions",
                "Processes of each version; two during a rolling update.",
                Query(f"count by (version) (dynein_build_info{{{PROCESS}}})", "{{version}}"),
                width=4,
                stacked=True,
            ),
            lines(
                "CPU",
                "Of each process, and of each worker of `dynein serve --workers`. A process near 1 is at its limit.",
                Query(rate("instance", "process_cpu_seconds_total", MACHINE), "{{instance}}"),
                Query(rate("instance, worker", "dynein_worker_cpu_seconds_total"), "{{instance}} {{worker}}"),
                unit="percentunit",
                width=6,
            ),
            lines(
                "Memory",
                "Resident memory of each process without workers. It grows with the jobs in memory, and is bounded.",
                Query(f"max by (instance) (process_resident_memory_bytes{{{MACHINE}}})", "{{instance}}"),
                unit="bytes",
                width=5,
            ),
            lines(
                "Worker restarts, last hour",
                "Workers that were replaced because they died or hung.",
                Query(f"sum by (instance) (increase(dynein_worker_starts_total{{{PROCESS}}}[1h]))", "{{instance}}"),
                width=5,
            ),
        ],
    )
