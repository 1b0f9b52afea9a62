"""What real processes on a real engine show of themselves, as Prometheus would read it."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest
import pytest_asyncio
from prometheus_client.parser import text_string_to_metric_families

from dynein import __version__
from dynein.fleet.forecast import MINUTES
from tests.acceptance.fleet import QUICK, Fleet, Process, fleet, now_ms, until, until_holds

pytestmark = pytest.mark.asyncio(loop_scope="module")

MINUTE_MS = 60_000
SHARDS = 8
OFTEN = {"DYNEIN_OBSERVE_INTERVAL_S": "1", "DYNEIN_FORECAST_INTERVAL_S": "2"}
SCHEDULED = {12: 7, 13: 30, 19: 1, 26: 120}
"""Jobs by the minute from now in which they are due: far enough ahead for none to be due while the test runs."""
Series = Mapping[tuple[str, frozenset[tuple[str, str]]], float]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Fleet]:
    async with fleet(tmp_path_factory.mktemp("metrics")) as made:
        made.environment |= QUICK | OFTEN
        yield made


@pytest.fixture(scope="module")
def ahead() -> Counter[int]:
    """The jobs that the tests have posted and that are not due while they run, by the number of their minute."""
    return Counter()


class Shown:
    """One answer of ``/metrics``."""

    def __init__(self, text: str) -> None:
        samples = [s for family in text_string_to_metric_families(text) for s in family.samples]
        self._series: Series = {(s.name, frozenset(s.labels.items())): s.value for s in samples}
        assert len(samples) == len(self._series), "no series twice"

    def of(self, metric: str, **labels: str) -> list[float]:
        """The values of all series of ``metric`` that have these labels."""
        return [value for (name, has), value in self._series.items() if name == metric and labels.items() <= set(has)]

    def total(self, metric: str, **labels: str) -> float:
        return sum(self.of(metric, **labels))

    def by(self, label: str, metric: str) -> dict[str, float]:
        return {dict(has)[label]: value for (name, has), value in self._series.items() if name == metric}


async def shown(running: Fleet, process: Process) -> Shown:
    async with running.http.get(f"{process.ops_url}/metrics") as answer:
        assert answer.status == 200
        return Shown(await answer.text())


async def submit(running: Fleet, process: Process, queue: str, jobs: list[dict[str, Any]]) -> None:
    body = {"jobs": [{"queue": queue, "body": "x", **job} for job in jobs]}
    async with running.http.post(f"{process.url}/v1/jobs/batch", json=body) as answer:
        assert (await answer.json())["refused"] == 0


@pytest.mark.parametrize("workers", [1, 2])
async def test_the_forecast_is_what_was_posted_and_the_counters_add_up(
    running: Fleet, ahead: Counter[int], workers: int
) -> None:
    queue = f"for-{workers}"
    async with running.sqs() as sqs:
        await sqs.create_queue(QueueName=queue)
    process = await running.start("api", "ingester", "dispatcher", DYNEIN_WORKERS=str(workers))
    try:
        await _everything_adds_up(running, process, queue, workers, ahead)
    finally:
        # Another would have to wait for the leases of one that was killed.
        assert await process.terminate() == 0


async def _everything_adds_up(running: Fleet, process: Process, queue: str, workers: int, ahead: Counter[int]) -> None:
    """``ahead``: the jobs that are stored already, by minute; what is posted here is added."""
    this_minute = now_ms() // MINUTE_MS
    posted = {this_minute + minute: jobs for minute, jobs in SCHEDULED.items()}
    far = [
        {"policy": "SCHEDULED", "run_at": minute * MINUTE_MS + 500 * i}
        for minute, jobs in posted.items()
        for i in range(jobs)
    ]
    soon = [{"policy": "SCHEDULED", "delay": 1.0} for _ in range(12)]
    now: list[dict[str, Any]] = [{} for _ in range(5)]
    for jobs in (far[:40], far[40:], soon, now):
        await submit(running, process, queue, jobs)
    ahead.update(posted)
    await _until_forecast_is(running, process, ahead)

    async def adds_up() -> None:
        last = await shown(running, process)
        assert last.total("dynein_jobs_delivered_total", queue=queue) == len(soon)
        assert last.total("dynein_triggers_stored_total") == len(far)
        _counters_add_up(last, queue, far=len(far), soon=len(soon), now=len(now))
        _shards_and_queues_are_shown(last)
        assert bool(last.of("process_cpu_seconds_total")) == (workers == 1)

    # All of it at once, in one response; which of them is the first is a matter of when each worker has polled what.
    await until_holds(adds_up)


def _counters_add_up(last: Shown, queue: str, *, far: int, soon: int, now: int) -> None:
    assert last.total("dynein_jobs_accepted_total", policy="SCHEDULED") == far + soon
    assert last.total("dynein_jobs_accepted_total", policy="IMMEDIATE") == now
    assert last.total("dynein_lateness_seconds_count", queue=queue) == soon
    assert last.total("dynein_api_requests_total", route="/v1/jobs/batch", status="200") == 4
    assert last.total("dynein_api_request_seconds_count", route="/v1/jobs/batch") == 4
    for operation in ("Query", "BatchWriteItem", "UpdateItem", "ReceiveMessage", "SendMessageBatch"):
        assert last.total("dynein_aws_calls_total", operation=operation, outcome="ok") > 0
        assert last.total("dynein_aws_call_seconds_count", operation=operation) > 0
    # As DynamoDB: a write unit for each job of up to 1 KB. roto deviates: it does not say what a Query consumes.
    assert last.total("dynein_capacity_units_total", operation="BatchWriteItem", kind="write") >= far
    assert last.total("dynein_capacity_units_total", operation="BatchGetItem", kind="read") > 0


def _shards_and_queues_are_shown(last: Shown) -> None:
    assert sorted(last.by("shard", "dynein_oldest_overdue_age_seconds")) == [str(shard) for shard in range(SHARDS)]
    assert last.total("dynein_overdue_jobs") == 0
    assert last.of("dynein_shards") == [SHARDS]
    assert last.of("dynein_shards_unowned") == [0]
    assert last.of("dynein_dead_letter_messages") == [0]
    assert last.by("state", "dynein_inbound_messages").keys() == {"visible", "in_flight", "delayed"}
    assert abs(last.of("dynein_clock_offset_seconds")[0]) <= 2, "one machine, one clock"
    assert last.of("dynein_build_info", version=__version__) == [1]


async def _until_forecast_is(running: Fleet, process: Process, jobs: Counter[int]) -> None:
    """Return once the forecast has so many jobs by the number of the minute, and no others."""

    async def is_forecast() -> bool:
        response = await shown(running, process)
        made_at = response.of("dynein_forecast_timestamp_seconds")
        minutes = response.by("minute", "dynein_forecast_jobs")
        if not made_at or len(minutes) != MINUTES:
            return False
        first = int(made_at[0]) // 60
        return Counter({first + int(minute): int(jobs) for minute, jobs in minutes.items() if jobs}) == jobs

    await until(is_forecast, f"the forecast is {jobs}")


async def test_a_process_without_a_dispatcher_shows_nothing_of_the_observer_s(running: Fleet) -> None:
    process = await running.start("api")
    answer = await shown(running, process)
    for metric in ("dynein_forecast_jobs", "dynein_shards", "dynein_inbound_messages", "dynein_dead_letter_messages"):
        assert answer.of(metric) == []
    assert await process.terminate() == 0
