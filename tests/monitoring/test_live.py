"""A real Prometheus scrapes a real run: every panel has data, no alert cries wolf, and what is broken is named."""

from __future__ import annotations

import asyncio
import math
import re
import signal
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import pytest
import pytest_asyncio

from k8s.monitoring.dashboard import VARIABLES
from k8s.monitoring.made import ALERTS
from tests.acceptance.fleet import QUICK, Fleet, Process, fleet, now_ms, until
from tests.deploy.rendering import named, render
from tests.monitoring.expected import Asked, alerts, of_panel, panels
from tests.monitoring.prometheus import Prometheus, prometheus

pytestmark = pytest.mark.asyncio(loop_scope="module")

SOONER = 12
"""How many times faster the rules are here than in earnest."""
MEASURED_SOONER = {
    "DYNEIN_OBSERVE_INTERVAL_S": "1",
    "DYNEIN_FORECAST_INTERVAL_S": "2",
    "DYNEIN_LEDGER_INTERVAL_S": "1",
    "DYNEIN_LEDGER_WINDOW_S": "3",
    "DYNEIN_LEDGER_GRACE_S": "12",
}
GONE, KEPT, SLOW = "gone", "kept", "slow.fifo"


class Run(NamedTuple):
    """A service that is scraped."""

    fleet: Fleet
    front: Process
    """API and ingester, two workers."""
    dispatcher: Process
    prometheus: Prometheus
    began_s: float


def sooner(rules: str) -> str:
    """The rules, with every duration in them, and every age that they compare with, divided."""

    def shorter(match: re.Match[str]) -> str:
        seconds = int(match[2]) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[match[3]]
        return f"{match[1]}{max(1, round(seconds / SOONER))}s"

    rules = re.sub(r"(\[|for: )(\d+)([smhd])\b", shorter, rules)
    return re.sub(
        r"(age_seconds\) > |timestamp_seconds\) < )(\d+)$",
        lambda m: f"{m[1]}{int(m[2]) / SOONER:g}",
        rules,
        flags=re.MULTILINE,
    )


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def run(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Run]:
    """Two processes and their Prometheus, after jobs of every kind and nothing wrong."""
    directory = tmp_path_factory.mktemp("monitoring")
    began_s = now_ms() / 1000
    async with fleet(directory) as made:
        made.environment |= {
            **QUICK,
            **MEASURED_SOONER,
            "DYNEIN_BACKOFF_MAX_S": "1",
            "DYNEIN_RETRY_BUDGET_S": "10",
            "DYNEIN_DESTINATION_CACHE_S": "1",
        }
        front = await made.start("api", "ingester", DYNEIN_WORKERS="2")
        dispatcher = await made.start("dispatcher")
        (directory / "alerts.yaml").write_text(sooner(ALERTS.read_text()))
        config = {
            "global": {"scrape_interval": "2s", "scrape_timeout": "2s", "evaluation_interval": "1s"},
            "rule_files": ["alerts.yaml"],
            "scrape_configs": [
                {
                    "job_name": "dynein",
                    "static_configs": [{"targets": [f"127.0.0.1:{process.port}" for process in (front, dispatcher)]}],
                }
            ],
        }
        async with prometheus(directory, config) as server:
            yield Run(made, front, dispatcher, server, began_s)


async def submit(run: Run, status: int = 202, **job: Any) -> str:
    """Post a job; its token."""
    async with run.fleet.http.post(f"{run.front.url}/v1/jobs", json={"body": "x", **job}) as answer:
        assert answer.status == status, await answer.text()
        return str((await answer.json()).get("token"))


async def change(run: Run, method: str, token: str, status: int, **fields: Any) -> None:
    """Cancel or move a job; again while the answer is another, for a job is stored a moment after it is accepted."""

    async def answered() -> bool:
        async with run.fleet.http.request(method, f"{run.front.url}/v1/jobs/{token}", json=fields or None) as answer:
            return answer.status == status

    await until(answered, f"{method} is answered with {status}")


async def some_of_everything(run: Run) -> None:
    """Jobs of every kind, and requests that are refused."""
    for delay in (1, 5, 6, 7, 90, 200, 400):
        await submit(run, queue=KEPT, policy="SCHEDULED", delay=delay)
    sent = await submit(run, queue=KEPT)
    await submit(run, queue=KEPT, policy="SQS_DELAYED", delay=1)
    await change(run, "DELETE", await submit(run, queue=KEPT, policy="SCHEDULED", delay=300), 200)
    await change(run, "PATCH", await submit(run, queue=KEPT, policy="SCHEDULED", delay=300), 200, delay=600)
    await change(run, "DELETE", sent, 409)
    await submit(run, 422, queue="nowhere")
    await submit(run, queue=SLOW, message_group_id="g")


# --- panels -----------------------------------------------------------------------------------------------------------


def filled_in(expr: str) -> str:
    """A query of the dashboard, as Grafana would send it when everything is chosen."""
    values = {"__rate_interval": "15s", **{variable.name: ".*" for variable in VARIABLES}}
    return re.sub(r"\$(\w+)", lambda match: values[match[1]], expr)


async def series(run: Run, query: Asked) -> list[dict[str, Any]]:
    """What a query of the dashboard shows of this run, without what is not a number."""
    if query.instant:
        found = await run.prometheus.instant(filled_in(query.expr))
        return [one for one in found if not math.isnan(float(one["value"][1]))]
    found = await run.prometheus.course(filled_in(query.expr), run.began_s, now_ms() / 1000)
    return [one for one in found if any(not math.isnan(float(value)) for _, value in one["values"])]


def nothing_ever(one: dict[str, Any]) -> bool:
    """Whether it is the line that stands for nothing."""
    return "none" in one["metric"].values()


async def is_empty(run: Run, query: Asked) -> bool:
    """No series, or series without the labels that tell them apart."""
    found = await series(run, query)
    return not any(nothing_ever(one) or query.shown <= one["metric"].keys() for one in found)


async def empty(run: Run) -> set[str]:
    """The panels with a query that shows nothing."""
    return {query.where for panel in panels() for query in of_panel(panel) if await is_empty(run, query)}


async def test_every_panel_has_data_and_all_is_well(run: Run) -> None:
    async with run.fleet.sqs() as sqs:
        for queue in (KEPT, GONE):
            await sqs.create_queue(QueueName=queue)
        # Of its delay the answers warn, and there is a panel for warnings.
        await sqs.create_queue(QueueName=SLOW, Attributes={"FifoQueue": "true", "DelaySeconds": "1"})
    await some_of_everything(run)
    # These need a failure: the next tests see them filled.
    failing = {"Failed sends by remedy", "Failed sends by destination", "Dead letters"}

    async def filled() -> bool:
        await some_of_everything(run)
        return (await empty(run)) <= failing

    await until(filled, "panels have data")

    async def all_is_well() -> bool:
        # On a busy machine, jobs may well be late.
        return await run.prometheus.firing() <= {"DyneinJobsLate"}

    await until(all_is_well, "no alert fires")


async def test_an_empty_panel_would_be_found(run: Run) -> None:
    assert not await is_empty(run, Asked("", "dynein_held_jobs", "{{instance}}", instant=False))
    assert await is_empty(run, Asked("", "dynein_held_job", "", instant=False))
    assert await is_empty(run, Asked("", "dynein_held_jobs", "{{queue}}", instant=False))
    assert await is_empty(run, Asked("", "0 * dynein_held_jobs / 0", "", instant=True))


async def test_the_choices_have_something_to_choose_from(run: Run) -> None:
    for variable in VARIABLES:
        values = await run.prometheus.get(f"label/{variable.name}/values", **{"match[]": variable.metric})
        assert values or variable.name == "namespace", f"{variable.name}: only Kubernetes has namespaces"


async def test_every_rule_is_evaluated(run: Run) -> None:
    async def all_evaluated() -> bool:
        return all(rule["health"] != "unknown" for rule in await run.prometheus.rules())

    await until(all_evaluated, "every rule has been evaluated")
    rules = await run.prometheus.rules()
    assert {rule["name"] for rule in rules} >= {rule["alert"] for rule in alerts()}
    assert {rule["name"]: rule.get("lastError") for rule in rules if rule["health"] != "ok"} == {}


async def test_keda_has_a_forecast_to_scale_by(run: Run) -> None:
    scaled = named(render("overlays/keda"), "ScaledObject", "dynein-dispatcher")
    query = scaled["spec"]["triggers"][0]["metadata"]["query"]
    query = re.sub(r'namespace="\w+", ', "", query)

    async def jobs_per_s() -> float:
        return sum([float(one["value"][1]) for one in await run.prometheus.instant(query)])

    assert 0 < await until(jobs_per_s, "a forecast that is not 0") < 10


# --- broken, one thing after the other --------------------------------------------------------------------------------


async def fires(run: Run, *names: str) -> None:
    """Wait until these alerts fire."""

    async def firing() -> bool:
        return set(names) <= await run.prometheus.firing()

    await until(firing, f"{names} fire")


async def test_a_deleted_destination_is_named(run: Run) -> None:
    await asyncio.gather(*(submit(run, queue=GONE, policy="SCHEDULED", delay=delay) for delay in (8, 9, 10, 11)))
    async with run.fleet.sqs() as sqs:
        await sqs.delete_queue(QueueUrl=(await sqs.get_queue_url(QueueName=GONE))["QueueUrl"])
    await fires(run, "DyneinDestinationFailing")
    await fires(run, "DyneinDeadLetters")
    loud = await run.prometheus.firing()
    assert "DyneinAwsFailing" not in loud, "it is the destination, not AWS"
    assert "DyneinDispatcherStalled" not in loud, "nor the dispatcher"

    async def filled() -> bool:
        return (await empty(run)) == set()

    await until(filled, "panels about failures have data")


async def test_a_frozen_dispatcher_is_noticed(run: Run) -> None:
    run.dispatcher.signal(signal.SIGSTOP)
    try:
        # It is the only one, so that nobody observes shards either.
        await fires(run, "DyneinTargetDown", "DyneinObserverMissing")
        assert "DyneinDown" not in await run.prometheus.firing()
    finally:
        run.dispatcher.signal(signal.SIGCONT)


async def test_the_end_of_all_is_noticed(run: Run) -> None:
    run.front.signal(signal.SIGKILL)
    run.dispatcher.signal(signal.SIGKILL)
    await fires(run, "DyneinDown")
