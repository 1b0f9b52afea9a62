"""``dynein dev``: the whole service in one process on an embedded SQS and DynamoDB, and a consumer that shows messages.

For trying things out; what it stores survives a restart (see `dynein.cli.engine`).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil
import sys
from pathlib import Path
from typing import Any, NamedTuple

import httpx

from dynein.admin.tail import Arrived, tail
from dynein.aws.bootstrap import bootstrap
from dynein.aws.clients import clients
from dynein.aws.sqs import SqsQueues
from dynein.cli.engine import CREDENTIALS, REGION, EmbeddedEngine, make_directory
from dynein.cli.jobs import DEFAULT_URL
from dynein.cli.output import clock_time, print_arrival, print_line, print_steps
from dynein.cli.running_dev import SECRET_FILE, announced
from dynein.errors import FatalError, Retryable
from dynein.observability.events.process import CONSUMER_FAILED
from dynein.observability.telemetry import Telemetry
from dynein.runtime.clock import SystemClock, sleep_unless
from dynein.runtime.context import command_context
from dynein.runtime.tasks import until
from dynein.server.service import Service
from dynein.settings import ROLES, Settings, load_settings

SAMPLE_TIMEOUT_S = 30.0
CONSUMER_PAUSE_S = 0.02
"""With a long poll, the embedded engine returns a message only at the next tenth of a second; short polls show when it
really arrived. On AWS, use long polls."""
_SAMPLES: tuple[dict[str, Any], ...] = (
    {"name": "sample IMMEDIATE", "policy": "IMMEDIATE"},
    {"name": "sample AUTO", "policy": "AUTO", "delay": 1},
    {"name": "sample SQS_DELAYED", "policy": "SQS_DELAYED", "delay": 2},
    {"name": "sample SCHEDULED", "policy": "SCHEDULED", "delay": 3},
    {"name": "sample SCHEDULED", "policy": "SCHEDULED", "delay": 8},
)


class DevOptions(NamedTuple):
    """The command's options, by their names."""

    host: str
    port: int
    engine_port: int
    queue: str
    engine: str
    data: Path
    consumer: bool
    sample: bool
    exit_after_sample: bool


class Dev:
    """One ``dynein dev``."""

    def __init__(self, options: DevOptions) -> None:
        self._options = options
        self._queue = options.queue
        self._sample = options.sample and options.consumer
        self._engine = EmbeddedEngine(
            engine=options.engine, host=options.host, port=options.engine_port, data_dir=options.data / "engine"
        )
        self._seen: set[str] = set()
        self._arrived = asyncio.Event()
        self.settings = _settings(options.host, options.port, self._engine.endpoint_url, options.data)

    async def run(self, stopping: asyncio.Event) -> None:
        """Everything, until ``stopping`` is set."""
        settings = self.settings
        clock = SystemClock()
        # The embedded engine accepts any credentials; the SDK requires some.
        for name, value in CREDENTIALS.items():
            os.environ.setdefault(name, value)
        service = Service(settings, list(ROLES))
        service.bind()  # a taken port is reported before anything is started
        async with self._engine as engine, clients(settings) as aws:
            print_line(("dynein dev", "bold"), f"  {engine.description}")
            print_steps(await bootstrap(aws, settings, command_context()))
            await aws.sqs.create_queue(QueueName=self._queue)
            queues = SqsQueues(aws.sqs, Telemetry())
            destination = await queues.resolve(self._queue)
            serving = asyncio.ensure_future(self._serve(service, stopping))
            consuming = asyncio.ensure_future(self._consume(queues, destination.url, clock, stopping))
            sampling = asyncio.ensure_future(self._samples(service, stopping))
            try:
                await until(serving, (consuming, sampling))
            finally:
                stopping.set()
                for task in (consuming, sampling):
                    task.cancel()
                await asyncio.gather(serving, consuming, sampling, return_exceptions=True)
        print_line(("stopped", "dim"))

    async def _serve(self, service: Service, stopping: asyncio.Event) -> None:
        announcing = asyncio.ensure_future(_announce_stop(stopping))
        try:
            await service.run(stopping)
        finally:
            announcing.cancel()

    async def _samples(self, service: Service, stopping: asyncio.Event) -> None:
        await service.started.wait()
        url = service.listeners.url
        if self._sample and not stopping.is_set():
            print_line()
            print_line((f"submitting {len(_SAMPLES)} sample jobs to queue {self._queue!r}", "bold"))
            try:
                async with httpx.AsyncClient(base_url=url, timeout=10, trust_env=False) as api:  # no proxy
                    expected = {await self._submit(api, sample) for sample in _SAMPLES}
                await self._all_arrived(expected)
            except (FatalError, httpx.HTTPError) as error:
                if stopping.is_set():
                    return  # the service is stopping: requests fail
                raise FatalError(str(error)) from error
        with announced(self._options.data, url, self.settings):
            _print_ready(url, self.settings, self._queue)
            if self._options.exit_after_sample:
                stopping.set()
            await stopping.wait()

    async def _submit(self, api: httpx.AsyncClient, sample: dict[str, Any]) -> str:
        job = {"queue": self._queue, "json": {"hello": sample["name"]}, **sample}
        response = await api.post("/v1/jobs", json=job)
        if not response.is_success:
            raise FatalError(f"the sample job was refused: {response.text}")
        accepted = response.json()
        due = clock_time(accepted["due_at_ms"])
        print_line((f"{due}  due  ", "dim"), (f"{sample['name']:<22}", "bold"), f" {accepted['policy']}")
        return str(accepted["token"])

    async def _all_arrived(self, expected: set[str]) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SAMPLE_TIMEOUT_S):
                while not expected <= self._seen:
                    self._arrived.clear()
                    await self._arrived.wait()
                return
        missing = len(expected - self._seen)
        raise FatalError(
            f"{missing} of the sample jobs did not arrive within {SAMPLE_TIMEOUT_S:.0f} s; see the log above"
        )

    async def _consume(self, queues: SqsQueues, url: str, clock: SystemClock, stopping: asyncio.Event) -> None:
        if not self._options.consumer:
            return
        print_line(("a sample consumer shows what arrives: when, where, how late, name, body", "dim"))
        while not stopping.is_set():
            arrivals = tail(
                queues, url, self._queue, clock, keep=False, wait_s=0, pause_s=CONSUMER_PAUSE_S, stopping=stopping
            )
            try:
                async for arrived in arrivals:
                    print_arrival(arrived)
                    self._note(arrived)
            except Retryable as error:  # the machine was suspended, for example
                CONSUMER_FAILED.log(error)
                await sleep_unless(stopping, clock, 1.0)

    def _note(self, arrived: Arrived) -> None:
        if arrived.token is not None and self._sample:
            self._seen.add(arrived.token)
            self._arrived.set()


async def _announce_stop(stopping: asyncio.Event) -> None:
    await stopping.wait()
    print_line(("stopping; Ctrl-C again ends it at once", "dim"))


def _settings(host: str, port: int, endpoint: str, data: Path) -> Settings:
    """What ``dynein dev`` needs; the environment may set anything else."""
    defaults: dict[str, Any] = {
        "log_level": "WARNING",
        # Keeps Ctrl-C quick: draining waits for a receive, and for buffered jobs that are due soon.
        "receive_wait_s": 1,
        "drain_s": 5,
        "shard_count": 4,
        "token_secrets": _secret(data),
    }
    chosen = {name: value for name, value in defaults.items() if f"DYNEIN_{name.upper()}" not in os.environ}
    return load_settings({**chosen, "host": host, "port": port, "endpoint_url": endpoint, "region": REGION})


def _secret(data: Path) -> str:
    """Tokens stay valid over a restart."""
    file = data / SECRET_FILE
    if not file.exists():
        make_directory(data)
        file.touch(mode=0o600)
        file.write_text(secrets.token_urlsafe(32))
    return file.read_text().strip()


def _print_ready(url: str, settings: Settings, queue: str) -> None:
    job = f'{{"queue": "{queue}", "body": "hello", "delay": 5, "policy": "SCHEDULED"}}'
    command = _command()
    elsewhere = "" if url == DEFAULT_URL else f" --url {url}"
    where = f"  API {url}  (try {url}/docs)   SQS and DynamoDB {settings.endpoint_url} in {REGION}   Ctrl-C stops"
    print_line()
    print_line(("ready", "bold"), where)
    print_line()
    print_line("submit a job, due in five seconds, and watch it arrive here:")
    print_line()
    print_line(f"  curl -s {url}/v1/jobs -d '{job}'")
    print_line(f"  {command} submit {queue} hello --delay 5{elsewhere}")
    print_line()


def _command() -> str:
    """How to call the command line from here: a virtual environment's script is often not on the path."""
    if shutil.which("dynein") is not None:
        return "dynein"
    script = Path(sys.argv[0])
    return str(script) if script.name == "dynein" else f"{Path(sys.executable).name} -m dynein"
