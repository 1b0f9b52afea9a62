"""The upper half of the dashboard: are jobs late, what is waiting and coming, what flows."""

from __future__ import annotations

from k8s.monitoring.grafana import ORANGE, RED, Query, Row, bars, lines, stat
from k8s.monitoring.promql import FLEET, PROCESS, QUEUE, highest, or_none, quantile, rate

SLO_S = "1.0"
LATE_SHARE_MAX = 0.01
"""The lateness objective, as in ``alerts.yaml``: this share of jobs may be sent later than ``SLO_S`` seconds."""


def late_share(per: str) -> str:
    """The share of jobs sent later than the objective allows."""
    in_time = rate("", "dynein_lateness_seconds_bucket", f'{QUEUE}, le="{SLO_S}"', per)
    return f"1 - {in_time} / {rate('', 'dynein_lateness_seconds_count', QUEUE, per)}"


def late() -> Row:
    firing = f'ALERTS{{alertname=~"Dynein.+", alertstate="firing", {FLEET}}}'
    return Row(
        "Are jobs late?",
        [
            stat(
                "Late now",
                "Share of the jobs sent in the last 5 minutes that left more than 1 s late. Objective: 1 %.",
                late_share("5m"),
                "percentunit",
                [(LATE_SHARE_MAX, ORANGE), (14.4 * LATE_SHARE_MAX, RED)],
                width=3,
            ),
            stat(
                "Budget burn, 1 h",
                "How many times faster than allowed the error budget was spent in the last hour. At 1 it lasts the "
                "month; at 14.4 it is gone in two days, and DyneinJobsLate fires as critical.",
                f"({late_share('1h')}) / {LATE_SHARE_MAX}",
                "short",
                [(1, ORANGE), (14.4, RED)],
                width=3,
            ),
            stat(
                "Oldest overdue",
                "How long the oldest due job has been waiting. The lateness panels have only jobs that were sent; this "
                "one shows jobs that are not sent at all.",
                highest("", "dynein_oldest_overdue_age_seconds"),
                "s",
                [(5, ORANGE), (60, RED)],
                width=3,
            ),
            stat(
                "Unaccounted jobs",
                "Conservation gap: jobs of the last 24 h that were accepted and are not accounted for. A value other "
                "than 0 for more than 10 minutes has to be explained: see “Ledger”.",
                highest("", "dynein_ledger_gap_jobs"),
                "short",
                [(1, RED)],
                width=3,
            ),
            lines(
                "Lateness",
                "Send time minus due time of the jobs that were sent. If p99 is high and p50 low, the cause is one "
                "destination or one shard: see the next panels. If all are high, it is the fleet or AWS.",
                Query(quantile(0.5, "dynein_lateness_seconds", matching=QUEUE), "p50"),
                Query(quantile(0.99, "dynein_lateness_seconds", matching=QUEUE), "p99"),
                Query(quantile(0.999, "dynein_lateness_seconds", matching=QUEUE), "p99.9"),
                unit="s",
                width=12,
                log=True,
                limit=float(SLO_S),
            ),
            lines(
                "Alerts firing",
                "Dynein's alerts; each has a runbook in docs/runbooks.",
                Query(
                    or_none(f"sum by (alertname) ({firing})", "alertname"),
                    "{{alertname}}",
                ),
                stacked=True,
            ),
            lines(
                "Lateness p99 by destination",
                "One destination late: that queue is slow or rejects messages. All late: the fleet, or AWS.",
                Query(quantile(0.99, "dynein_lateness_seconds", "queue", QUEUE), "{{queue}}"),
                unit="s",
                log=True,
            ),
            lines(
                "Oldest overdue by shard",
                "One shard: its dispatcher is frozen, or the shard is hot. All: no dispatcher runs, or the table does "
                "not respond.",
                Query(f"topk(8, {highest('shard', 'dynein_oldest_overdue_age_seconds')})", "shard {{shard}}"),
                unit="s",
            ),
        ],
    )


def waiting() -> Row:
    return Row(
        "Waiting and upcoming jobs",
        [
            lines(
                "Inbound queue",
                "Messages, each with up to hundreds of jobs. Visible: waiting for an ingester. In flight: an ingester "
                "works on them or holds their jobs. If visible grows, there are too few ingesters, or "
                "DYNEIN_INGEST_RATE_PER_S is too low.",
                Query(highest("state", "dynein_inbound_messages"), "{{state}}"),
            ),
            lines(
                "Inbound: oldest message",
                "Age of the oldest message that ingesters last received. Normal: below 10 s. If it does not change "
                "while the queue grows, they receive nothing.",
                Query(highest("", "dynein_inbound_oldest_age_seconds"), "oldest"),
                unit="s",
                limit=60,
            ),
            lines(
                "In memory and overdue",
                "Jobs in memory: read ahead by dispatchers, or held by ingesters until due. Overdue: jobs in a "
                "dispatcher's memory that have been due for more than a second; destinations are slow.",
                Query(f"sum(dynein_read_ahead_jobs{{{PROCESS}}})", "read ahead"),
                Query(f"sum(dynein_held_jobs{{{PROCESS}}})", "held"),
                Query(f"sum(dynein_overdue_jobs{{{PROCESS}}})", "overdue"),
            ),
            bars(
                "Due in the coming minutes",
                "Jobs in the store that fall due in each of the coming 30 minutes. Have enough dispatchers running "
                "before a peak; KEDA scales by this forecast.",
                highest("minute", "dynein_forecast_jobs"),
                "minute",
                width=16,
            ),
            lines(
                "Age of observer metrics",
                "How old the observer's forecast and ledger are. If it grows, there is no observer, and waiting jobs, "
                "unowned shards and dead letters are not measured.",
                Query(f"time() - {highest('', 'dynein_forecast_timestamp_seconds')}", "forecast"),
                Query(f"time() - {highest('', 'dynein_ledger_timestamp_seconds')}", "ledger"),
                unit="s",
                limit=300,
            ),
        ],
    )


def flow() -> Row:
    return Row(
        "Flow",
        [
            lines(
                "Accepted",
                "Jobs accepted by the API, by policy.",
                Query(rate("policy", "dynein_jobs_accepted_total"), "{{policy}}"),
                unit="cps",
                stacked=True,
            ),
            lines(
                "Ingested",
                "Jobs taken from the inbound queue, by outcome: stored; held (due within seconds, sent by the "
                "ingester); cancelled before they were stored; duplicates; poison (cannot be decoded, dead-lettered).",
                Query(rate("outcome", "dynein_jobs_ingested_total"), "{{outcome}}"),
                unit="cps",
                stacked=True,
            ),
            lines(
                "Sent",
                "Due jobs that SQS acknowledged, by the role that sent them; triggers stored, and removed after their "
                "send.",
                Query(rate("role", "dynein_jobs_delivered_total", QUEUE), "sent by {{role}}"),
                Query(rate("", "dynein_triggers_stored_total"), "stored"),
                Query(rate("", "dynein_triggers_removed_total"), "removed"),
                unit="cps",
            ),
            lines(
                "Sent by destination",
                "Due jobs that SQS acknowledged, by destination queue; those beyond the first 100 are `other`.",
                Query(f"topk(12, {rate('queue', 'dynein_jobs_delivered_total', QUEUE)})", "{{queue}}"),
                unit="cps",
                stacked=True,
            ),
            lines(
                "Cancelled and moved",
                "Requests, by outcome. Any outcome but `cancelled` and `moved` is the reason why it was not done.",
                Query(rate("outcome", "dynein_jobs_cancelled_total"), "cancel: {{outcome}}"),
                Query(rate("outcome", "dynein_jobs_moved_total"), "move: {{outcome}}"),
                unit="cps",
            ),
            lines(
                "Ledger",
                "Jobs of the last 24 h by what happened to them, as counted by the conservation ledger. The last "
                "counts of a process that is killed are lost.",
                Query(highest("flow", "dynein_ledger_jobs"), "{{flow}}"),
                Query(highest("", "dynein_ledger_gap_jobs"), "GAP"),
                Query(highest("", "dynein_ledger_uncertain_jobs"), "uncertain"),
                Query(highest("", "dynein_ledger_surplus_jobs"), "surplus"),
                Query(f"sum({highest('role', 'dynein_ledger_undrained_processes')})", "killed processes"),
            ),
        ],
    )
