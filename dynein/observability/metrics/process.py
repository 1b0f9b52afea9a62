"""Metrics of a process, and of the workers of ``dynein serve --workers``."""

from __future__ import annotations

from dynein import __version__
from dynein.observability.metrics.declaring import Declarer

WORKER = "the worker's number"


class ProcessMetrics:
    """The version that runs; workers, by number."""

    def __init__(self, declare: Declarer) -> None:
        build = declare.gauge(
            "dynein_build_info",
            "Always 1; the label has the version",
            {"version": "Dynein's version"},
            combined="livemax",
            roles="all",
            look="behaviour changed, to see whether another version was deployed",
        )
        build.labels(__version__).set(1)
        # Only live workers have this series, so that counting its series counts them.
        self.worker_connections = declare.gauge(
            "dynein_worker_connections",
            "Open HTTP connections, by worker; live workers only",
            {"worker": WORKER},
            combined="livesum",
            roles="all, with `--workers`",
            look="one worker is busier than the others",
        )
        self.worker_requests = declare.counter(
            "dynein_worker_requests_total",
            "HTTP requests, by worker",
            {"worker": WORKER},
            roles="all, with `--workers`",
            look="one worker is busier than the others",
        )
        self.worker_cpu = declare.counter(
            "dynein_worker_cpu_seconds_total",
            "CPU time used, by worker",
            {"worker": WORKER},
            roles="all, with `--workers`",
            look="throughput does not rise: a worker that uses 1 s of CPU a second is at its limit",
        )
        self.worker_starts = declare.counter(
            "dynein_worker_starts_total",
            "Times a worker has become ready; the first time is not a restart",
            {"worker": WORKER},
            roles="all, with `--workers`",
            look="workers exit: the log (`worker.ended`) says why",
        )
