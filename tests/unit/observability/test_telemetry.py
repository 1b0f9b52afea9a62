from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from dynein import __version__
from dynein.observability.metrics.ledger import LEDGER
from dynein.observability.metrics.reference import reference_page
from dynein.observability.telemetry import QUEUE_LABELS_MAX, Telemetry

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "metrics.md"


def test_the_reference_page_is_up_to_date() -> None:
    assert PAGE.read_text() == reference_page(Telemetry().declared), "make reference"


def test_every_metric_is_declared_with_all_that_the_page_needs() -> None:
    telemetry = Telemetry()
    declared = {metric.name for metric in telemetry.declared}
    counters = {f"{metric.name}_total" for metric in telemetry.registry.collect() if metric.type == "counter"}
    others = {metric.name for metric in telemetry.registry.collect() if metric.type != "counter"}
    assert counters | others | {metric.name for metric in LEDGER} == declared, (
        "declare it in dynein/observability/metrics"
    )
    for metric in telemetry.declared:
        assert all([metric.roles, metric.meaning, metric.look, *metric.labels.values()]), metric.name
        assert not metric.meaning.endswith("."), metric.name
        assert not metric.look.endswith("."), metric.name


def test_the_version_that_runs() -> None:
    assert Telemetry().registry.get_sample_value("dynein_build_info", {"version": __version__}) == 1


def test_queues_past_the_bound_share_a_label() -> None:
    telemetry = Telemetry()
    labels = {telemetry.queue_label(f"queue-{i}") for i in range(QUEUE_LABELS_MAX + 50)}
    assert len(labels) == QUEUE_LABELS_MAX + 1
    assert telemetry.queue_label("queue-0") == "queue-0", "a label once given stays"


def shown(text: str, name: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith(name)]


def test_a_series_that_is_forgotten_is_gone() -> None:
    telemetry = Telemetry()

    def series() -> list[str]:
        text = telemetry.exposition().decode()
        return shown(text, "dynein_forecast_jobs") + shown(text, "dynein_dead_letter_messages")

    assert series() == [], "nor is it there before it is set"
    telemetry.forecast.labels("0").set(5)
    telemetry.forecast.labels("1").set(0)
    telemetry.dead_letters.set(2)
    first, second = 'dynein_forecast_jobs{minute="0"} 5.0', 'dynein_forecast_jobs{minute="1"} 0.0'
    assert series() == [first, second, "dynein_dead_letter_messages 2.0"]
    telemetry.forecast.forget(keep=["1"])
    telemetry.dead_letters.forget()
    assert series() == [second]


def test_a_single_process_shows_what_it_uses() -> None:
    telemetry = Telemetry()
    telemetry.measure_process()
    if sys.platform == "linux":
        assert "process_resident_memory_bytes" in telemetry.exposition().decode()


# In a process of its own: the kind of metrics is chosen once, on import.
_WORKERS = """
import os, sys
from pathlib import Path
os.environ["PROMETHEUS_MULTIPROC_DIR"] = sys.argv[1]
from prometheus_client import values
from dynein.observability.telemetry import Telemetry
workers = []
for number in range(3):
    values.ValueClass = values.MultiProcessValue(lambda number=number: number)
    workers.append(Telemetry(workers_directory=Path(sys.argv[1])))
{statements}
workers[0].measure_process()
print(workers[-1].exposition().decode())
"""


@pytest.fixture
def together(tmp_path: Path):  # type: ignore[no-untyped-def]
    def run(*statements: str) -> str:
        code = _WORKERS.replace("{statements}", "\n".join(statements))
        done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
        return done.stdout

    return run


def test_workers_report_as_one(together) -> None:  # type: ignore[no-untyped-def]
    text = together(
        "for n, worker in enumerate(workers):",
        "    worker.accepted.labels('SCHEDULED').inc(n + 1)",
        "    worker.overdue.set(n)",
        "    worker.inbound_oldest_age.set(10 - n)",
        "    worker.clock_offset.set(n)",
        "    worker.lateness.labels('dispatcher', 'a').observe(0.5)",
        "workers[1].clock_offset.set(-40)",
    )
    assert shown(text, "dynein_jobs_accepted_total{") == ['dynein_jobs_accepted_total{policy="SCHEDULED"} 6.0']
    assert shown(text, "dynein_overdue_jobs") == ["dynein_overdue_jobs 3.0"]
    assert shown(text, "dynein_inbound_oldest_age_seconds") == ["dynein_inbound_oldest_age_seconds 10.0"]
    assert shown(text, "dynein_clock_offset_seconds") == ["dynein_clock_offset_seconds -40.0"]
    assert shown(text, "dynein_lateness_seconds_count") == [
        'dynein_lateness_seconds_count{queue="a",role="dispatcher"} 3.0'
    ]
    assert shown(text, "dynein_build_info") == [f"dynein_build_info{{version={json.dumps(__version__)}}} 1.0"]
    assert shown(text, "process_") == [], "whose would they be?"


def test_what_one_worker_knows_is_not_hidden_by_those_that_do_not(together) -> None:  # type: ignore[no-untyped-def]
    text = together(
        "workers[0].oldest_overdue_age.labels('7').set(3)",
        "workers[0].oldest_overdue_age.forget()",
        "workers[1].oldest_overdue_age.labels('7').set(0.5)",
        "workers[2].oldest_overdue_age.labels('8').set(1)",
        "workers[2].oldest_overdue_age.forget()",
        "workers[1].dead_letters.set(0)",
        "workers[0].shards.set(8)",
        "workers[0].shards.forget()",
    )
    assert shown(text, "dynein_oldest_overdue_age_seconds") == ['dynein_oldest_overdue_age_seconds{shard="7"} 0.5']
    assert shown(text, "dynein_dead_letter_messages") == ["dynein_dead_letter_messages 0.0"]
    assert shown(text, "dynein_shards") == []
