"""Processes: their start and end, their periodic work, their AWS calls."""

from __future__ import annotations

from logging import ERROR, INFO, WARNING

from dynein.observability.events.event import Event

PROCESS_STARTED = Event(
    "process.started",
    INFO,
    "the process serves requests",
    "version roles url ops_url",
    "Nothing.",
)
START_DELAYED = Event(
    "process.start_delayed",
    WARNING,
    "AWS does not respond at process start; it is retried a few times before the process exits",
    "what error retry_in_s",
    "Nothing if it stops; otherwise see `error`: often a wrong region or endpoint.",
)
PROCESS_STOPPING = Event(
    "process.stopping",
    INFO,
    "the process is stopping: work under way is finished or handed over",
    "within_s",
    "Nothing.",
)
PROCESS_STOPPED = Event(
    "process.stopped",
    INFO,
    "drained",
    "took_s",
    "Nothing.",
)
DRAIN_LATE = Event(
    "drain.late",
    WARNING,
    "the process did not drain in time; its leases will expire, and other processes take its work over",
    "role within_s",
    "Nothing is lost. If it is frequent, raise `drain_s` (and Kubernetes' grace period).",
)
ROSTER_NOT_LEFT = Event(
    "roster.not_left",
    WARNING,
    "this process could not remove itself from the roster; others notice within seconds that it is gone",
    "role error",
    "Nothing.",
)
PASS_FAILED = Event(
    "pass.failed",
    WARNING,
    "periodic work failed; it is retried",
    "what error retry_in_s",
    "Nothing if it stops; otherwise see `error`.",
)
OBSERVER_BLIND = Event(
    "observer.blind",
    WARNING,
    "the observer could not measure something, so its metrics are missing; logged once for each reason",
    "what error",
    "Jobs are not affected. See `error`: often a missing permission.",
)
AWS_THROTTLED = Event(
    "aws.throttled",
    WARNING,
    "AWS throttled a call",
    "operation error repeats",
    "Nothing if it stops. DynamoDB: use on-demand capacity, or more shards. SQS: raise the quota of the queue.",
    once_by=("operation",),
)
AWS_PROXIED = Event(
    "aws.proxied",
    INFO,
    "an AWS service is reached through a proxy, so the AWS SDK makes all calls to it",
    "url",
    "Nothing; calls cost more CPU than with Dynein's own client.",
)
WORKERS_STARTED = Event(
    "workers.started",
    INFO,
    "worker processes were started on one port",
    "workers url ops_url",
    "Nothing.",
)
WORKERS_KILLED = Event(
    "workers.killed",
    ERROR,
    "workers did not exit in time and were killed; other processes take their work over",
    "within_s",
    "Nothing is lost. Find out why they hung: see their last lines.",
)
WORKER_ENDED = Event(
    "worker.ended",
    WARNING,
    "a worker exited; it is replaced",
    "number error retry_in_s",
    "See its last log lines. `signal 9` may be the kernel's out-of-memory killer.",
)
WORKER_FAILING = Event(
    "worker.failing",
    ERROR,
    "a worker exited several times in a row soon after its start; all workers stop",
    "number error failures",
    "See its last log lines.",
)
WORKER_NOT_STARTED = Event(
    "worker.not_started",
    WARNING,
    "the operating system could not start a worker",
    "number error",
    "Raise the limits on processes, descriptors or memory.",
)
WORKER_HUNG = Event(
    "worker.hung",
    ERROR,
    "a worker sent no heartbeat in time and was killed",
    "number within_s",
    "Find out whether it had no CPU, or was stopped (SIGSTOP, a debugger).",
)
WORKER_ORPHANED = Event(
    "worker.orphaned",
    WARNING,
    "the parent process is gone; this worker drains and exits",
    "",
    "Start the service again, and find out what killed the parent.",
)
CONSUMER_FAILED = Event(
    "consumer.failed",
    WARNING,
    "a receive of the sample consumer of `dynein dev` failed; it is retried",
    "error",
    "Nothing.",
)
