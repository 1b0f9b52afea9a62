from __future__ import annotations

import asyncio
import ipaddress
import json
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynein.observability.telemetry import Telemetry
from dynein.server.load_gate import IN_PROGRESS_MIN, LATE_S, LoadGate, caller_address
from dynein.settings import Settings

PROXIES = (ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("fd00::/8"))


def address(peer: str, *forwarded: str) -> str:
    headers = [(b"x-forwarded-for", value.encode()) for value in forwarded]
    return caller_address(peer, [(b"host", b"x"), *headers], PROXIES)


def test_whoever_connects_is_the_caller_unless_it_is_a_trusted_proxy() -> None:
    assert address("203.0.113.9", "198.51.100.1") == "203.0.113.9"
    assert address("10.1.2.3", "198.51.100.1") == "198.51.100.1"
    assert address("fd00::1", "2001:db8::7") == "2001:db8::7"
    assert address("10.1.2.3") == "10.1.2.3"


def test_what_a_caller_writes_in_front_of_its_own_address_does_not_count() -> None:
    assert address("10.1.2.3", "1.2.3.4, 198.51.100.1, 10.9.9.9") == "198.51.100.1"
    assert address("10.1.2.3", "1.2.3.4", "198.51.100.1") == "198.51.100.1"
    assert address("10.1.2.3", "1.2.3.4, rubbish") == "10.1.2.3"


@given(st.lists(st.text(max_size=40), max_size=4))
def test_any_header_names_some_address(values: list[str]) -> None:
    headers = [(b"x-forwarded-for", value.encode()) for value in values]
    ipaddress.ip_address(caller_address("10.0.0.1", headers, PROXIES))  # raises if it is none


def gate(**settings: object) -> LoadGate:
    return LoadGate(Settings.model_validate(settings), Telemetry())


async def test_each_caller_has_a_rate_of_its_own() -> None:
    limited = gate(caller_rate_per_s=10.0, caller_burst_s=2.0)
    admitted = [limited.admit(b"/v1/jobs", "192.0.2.1", [], 0, 1) for _ in range(100)]
    assert sum(refusal is None for refusal in admitted) == pytest.approx(20, abs=1)
    refusal = admitted[-1]
    assert refusal is not None
    assert refusal.status == 429
    assert b"retry-after: 1\r\n" in refusal.head
    problem = json.loads(refusal.body)
    assert problem["code"] == "rate-limited"
    assert "caller_rate_per_s" in problem["detail"]
    assert limited.admit(b"/v1/jobs", "192.0.2.2", [], 0, 1) is None


async def test_large_bodies_use_the_rate_up_sooner() -> None:
    limited = gate(caller_rate_per_s=10.0, caller_burst_s=2.0)
    admitted = [limited.admit(b"/v1/jobs/batch", "192.0.2.1", [], 16 * 4096, 1) for _ in range(100)]
    assert sum(refusal is None for refusal in admitted) <= 3


async def test_probes_and_metrics_are_always_let_in() -> None:
    limited = gate(caller_rate_per_s=1.0, caller_burst_s=1.0)
    for path in (b"/healthz", b"/readyz", b"/metrics"):
        assert all(limited.admit(path, "192.0.2.1", [], 0, 1) is None for _ in range(100))


class SteppedLoop(asyncio.SelectorEventLoop):
    """An event loop whose time passes when the test says so."""

    now = 0.0

    def time(self) -> float:
        return self.now


def refused(turns: Iterable[tuple[float, float]], in_progress: int = 2 * IN_PROGRESS_MIN) -> dict[str, int]:
    """How many requests of two callers are refused. Each turn of the event loop: its length, and the CPU it takes."""
    loop = SteppedLoop()
    used_s = 0.0

    async def serve() -> dict[str, int]:
        nonlocal used_s
        busy = LoadGate(Settings(), Telemetry(), cpu_s=lambda: used_s)
        count = {"flood": 0, "modest": 0}
        for turn, (length_s, cpu_s) in enumerate(turns):
            for caller, requests in (("modest", turn % 4 == 0), ("flood", 50)):
                for _ in range(requests):
                    count[caller] += busy.admit(b"/v1/jobs", caller, [], 0, in_progress) is not None
            loop.now += length_s
            used_s += cpu_s
            await asyncio.sleep(0)  # noqa: TID251 - a turn of the event loop
        return count

    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        return runner.run(serve())


BUSY_TURN, IDLE_TURN = (0.01, 0.01), (0.01, 0.001)


def test_of_a_busy_process_in_which_a_queue_stands_the_flood_is_refused_and_no_other() -> None:
    count = refused([BUSY_TURN] * 2000)
    assert count["flood"] > 1000
    assert count["modest"] == 0


def test_so_it_is_when_other_programs_take_the_core() -> None:
    count = refused([(3 * LATE_S, 0.01)] * 200)
    assert count["flood"] > 1000
    assert count["modest"] == 0


def test_requests_that_keep_a_process_busy_without_a_queue_are_no_overload() -> None:
    assert refused([BUSY_TURN] * 2000, IN_PROGRESS_MIN) == {"flood": 0, "modest": 0}


def test_requests_that_wait_for_aws_are_no_overload() -> None:
    assert refused([IDLE_TURN] * 2000, 100 * IN_PROGRESS_MIN) == {"flood": 0, "modest": 0}


def test_a_slow_turn_of_the_event_loop_now_and_then_is_no_overload() -> None:
    assert refused(([IDLE_TURN] * 50 + [(20 * LATE_S, 0.01)]) * 20) == {"flood": 0, "modest": 0}


async def test_overload_is_not_watched_for_ever() -> None:
    quiet = gate()
    quiet.admit(b"/v1/jobs", "a", [], 0, 1)
    assert quiet._overload.is_watching
    async with asyncio.timeout(60):
        while quiet._overload.is_watching:  # noqa: ASYNC110 - a real event loop
            await asyncio.sleep(0.05)  # noqa: TID251
