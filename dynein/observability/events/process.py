"""Processes: their start and end, their loops, their AWS calls."""

from __future__ import annotations

from logging import ERROR, INFO, WARNING

from dynein.observability.events.event import Event

PROCESS_STARTED = Event(
    "process.started",
    INFO,
    "dynein serves",
    "version roles url",
    "Nothing.",
)
START_DELAYED = Event(
    "process.start_delayed",
    WARNING,
    "AWS does not answer at the start; tried again a few times before the process gives up",
    "what error retry_in_s",
    "Nothing if it passes; else see `error`: often a wrong region or endpoint.",
)
PROCESS_STOPPING = Event(
    "process.stopping",
    INFO,
    "stopping: what is in hand is finished or handed over",
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
    "not drained in time; leases that are left expire, and what was in hand is taken over",
    "role within_s",
    "Nothing is lost. Often: raise `drain_s` (and Kubernetes' grace period).",
)
ROSTER_NOT_LEFT = Event(
    "roster.not_left",
    WARNING,
    "this process could not leave the roster; others notice in a few seconds",
    "role error",
    "Nothing.",
)
PASS_FAILED = Event(
    "pass.failed",
    WARNING,
    "a pass of a loop failed and is repeated",
    "what error retry_in_s",
    "Nothing if it passes; else see `error`.",
)
OBSERVER_BLIND = Event(
    "observer.blind",
    WARNING,
    "the observer cannot see something, so the metrics of it are missing; told once for each reason",
    "what error",
    "Jobs are not concerned. See `error`: often a permission.",
)
AWS_THROTTLED = Event(
    "aws.throttled",
    WARNING,
    "AWS asks to slow down",
    "operation error repeats",
    "Nothing if it passes. DynamoDB: on-demand capacity, more shards. SQS: a quota of the queue.",
    once_by=("operation",),
)
AWS_PROXIED = Event(
    "aws.proxied",
    INFO,
    "an AWS service is reached through a proxy: the SDK makes all calls to it",
    "url",
    "Nothing; calls cost more CPU.",
)
WORKERS_STARTED = Event(
    "workers.started",
    INFO,
    "worker processes share a port",
    "workers url",
    "Nothing.",
)
WORKERS_KILLED = Event(
    "workers.killed",
    ERROR,
    "workers did not end and were killed; what was in hand is taken over",
    "within_s",
    "Nothing is lost. Why did they hang?",
)
WORKER_ENDED = Event(
    "worker.ended",
    WARNING,
    "a worker ended; another starts",
    "number error retry_in_s",
    "See its last lines. `signal 9` may be the kernel's out-of-memory killer.",
)
WORKER_FAILING = Event(
    "worker.failing",
    ERROR,
    "a worker ended at once, again and again; all stop",
    "number error failures",
    "See its last lines.",
)
WORKER_NOT_STARTED = Event(
    "worker.not_started",
    WARNING,
    "the system has no room for a worker",
    "number error",
    "Raise the limits on processes, descriptors or memory.",
)
WORKER_HUNG = Event(
    "worker.hung",
    ERROR,
    "a worker has not beaten and was killed",
    "number within_s",
    "Was it starved of CPU, or stopped?",
)
WORKER_ORPHANED = Event(
    "worker.orphaned",
    WARNING,
    "the parent process is gone: draining",
    "",
    "Start the service again. Who killed the parent?",
)
CONSUMER_FAILED = Event(
    "consumer.failed",
    WARNING,
    "the sample consumer of `dynein dev` failed and goes on",
    "error",
    "Nothing.",
)
