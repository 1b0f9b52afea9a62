"""What a process measures of itself, and of the workers it is one of."""

from __future__ import annotations

from dynein import __version__
from dynein.observability.metrics.declaring import Declarer

WORKER = "the worker's number"


class ProcessMetrics:
    """Which version runs; workers of ``dynein serve --workers``, by number."""

    def __init__(self, declare: Declarer) -> None:
        build = declare.gauge(
            "dynein_build_info",
            "1, for its label",
            {"version": "Dynein's version"},
            combined="livemax",
            roles="all",
            look="behaviour changed: was it a deployment?",
        )
        build.labels(__version__).set(1)
        # Connections are those of workers that live: count them for who does.
        self.worker_connections = declare.gauge(
            "dynein_worker_connections",
            "HTTP connections of each worker that lives",
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
            look="a core is the limit: a worker that uses 1 s a second can do no more",
        )
        self.worker_starts = declare.counter(
            "dynein_worker_starts_total",
            "Times a worker has become ready; the first is no restart",
            {"worker": WORKER},
            roles="all, with `--workers`",
            look="workers die: the log says of what",
        )
