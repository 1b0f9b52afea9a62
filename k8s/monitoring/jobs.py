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
                "month; at 14.4 it is gone in two days, and DyneinJobsLate wakes someone.",
                f"({late_share('1h')}) / {LATE_SHARE_MAX}",
                "short",
                [(1, ORANGE), (14.4, RED)],
                width=3,
            ),
            stat(
                "Oldest overdue",
                "For how long the oldest due job has not been sent. Sent jobs are in the lateness panels; this sees"
                " those that do not leave at all.",
                highest("", "dynein_oldest_overdue_age_seconds"),
                "s",
                [(5, ORANGE), (60, RED)],
                width=3,
            ),
            stat(
                "Unaccounted jobs",
                "Conservation gap: of the jobs of the last 24 h, those that were accepted and went nowhere. "
                "Anything but 0 for more than 10 minutes wants an explanation: see “Ledger”.",
                highest("", "dynein_ledger_gap_jobs"),
                "short",
                [(1, RED)],
                width=3,
            ),
            lines(
                "Lateness",
                "Send time minus due time of the jobs that left. When it rose says since when. p99 high and p50 low: "
                "one destination or one shard; see the next panels. All high: the fleet, or AWS.",
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
                "Dynein's alerts; each has a page in docs/runbooks.",
                Query(
                    or_none(f"sum by (alertname) ({firing})", "alertname"),
                    "{{alertname}}",
                ),
                stacked=True,
            ),
            lines(
                "Lateness p99 by destination",
                "One destination late: it is slow or refuses. All late: the fleet, or AWS.",
                Query(quantile(0.99, "dynein_lateness_seconds", "queue", QUEUE), "{{queue}}"),
                unit="s",
                log=True,
            ),
            lines(
                "Oldest overdue by shard",
                "One shard: its dispatcher is frozen or the shard is hot. All: no dispatcher, or the table does not "
                "answer.",
                Query(f"topk(8, {highest('shard', 'dynein_oldest_overdue_age_seconds')})", "shard {{shard}}"),
                unit="s",
            ),
        ],
    )


def waiting() -> Row:
    return Row(
        "What is waiting, and what is coming",
        [
            lines(
                "Inbound queue",
                "Messages, each with up to hundreds of jobs. Visible: nobody has taken them yet. In flight: in an "
                "ingester's hand. Visible and growing: too few ingesters, or DYNEIN_INGEST_RATE_PER_S is too low.",
                Query(highest("state", "dynein_inbound_messages"), "{{state}}"),
            ),
            lines(
                "Inbound: oldest message",
                "Age of the oldest message that ingesters last received. Ordinary: below 10 s. Standing still while"
                " the queue grows: they receive nothing.",
                Query(highest("", "dynein_inbound_oldest_age_seconds"), "oldest"),
                unit="s",
                limit=60,
            ),
            lines(
                "In hand and overdue",
                "In memory on purpose: read ahead by dispatchers, held by ingesters until due. Overdue: those of a "
                "dispatcher's that are due for more than a second; destinations are slow.",
                Query(f"sum(dynein_read_ahead_jobs{{{PROCESS}}})", "read ahead"),
                Query(f"sum(dynein_held_jobs{{{PROCESS}}})", "held"),
                Query(f"sum(dynein_overdue_jobs{{{PROCESS}}})", "overdue"),
            ),
            bars(
                "Due in the coming minutes",
                "Jobs in the store that fall due in each of the coming 30 minutes. A tall bar is the time to have "
                "enough dispatchers by; KEDA scales by it.",
                highest("minute", "dynein_forecast_jobs"),
                "minute",
                width=16,
            ),
            lines(
                "Age of the figures",
                "How old the observer's forecast and ledger are. Growing: there is no observer, and what is waiting, "
                "unowned or dead-lettered goes unseen.",
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
                "Taken in",
                "Jobs from the inbound queue, by what became of them: stored; held (sent by the ingester, for they are "
                "due in seconds); cancelled before they were stored; duplicates; poison (unreadable, dead-lettered).",
                Query(rate("outcome", "dynein_jobs_ingested_total"), "{{outcome}}"),
                unit="cps",
                stacked=True,
            ),
            lines(
                "Sent",
                "Due jobs that SQS acknowledged, by who sent them; and triggers stored, and removed after their send.",
                Query(rate("role", "dynein_jobs_delivered_total", QUEUE), "sent by {{role}}"),
                Query(rate("", "dynein_triggers_stored_total"), "stored"),
                Query(rate("", "dynein_triggers_removed_total"), "removed"),
                unit="cps",
            ),
            lines(
                "Sent by destination",
                "The same by destination queue; beyond 100 queues, the rest is `other`.",
                Query(f"topk(12, {rate('queue', 'dynein_jobs_delivered_total', QUEUE)})", "{{queue}}"),
                unit="cps",
                stacked=True,
            ),
            lines(
                "Cancelled and moved",
                "Requests, by outcome. An outcome other than `cancelled` and `moved` says why it was too late.",
                Query(rate("outcome", "dynein_jobs_cancelled_total"), "cancel: {{outcome}}"),
                Query(rate("outcome", "dynein_jobs_moved_total"), "move: {{outcome}}"),
                unit="cps",
            ),
            lines(
                "Ledger",
                "Jobs of the last 24 h by what became of them, as the conservation check counts them. A process "
                "that was killed takes its last counts with it.",
                Query(highest("flow", "dynein_ledger_jobs"), "{{flow}}"),
                Query(highest("", "dynein_ledger_gap_jobs"), "GAP"),
                Query(highest("", "dynein_ledger_surplus_jobs"), "surplus"),
                Query(f"sum({highest('role', 'dynein_ledger_undrained_processes')})", "killed processes"),
            ),
        ],
    )
