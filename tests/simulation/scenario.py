"""What a seed stands for: a fleet, its settings and a mix of faults.

Swarm testing (Groce et al., ISSTA 2012): a seed switches each kind of fault on or off by itself. Runs with few kinds
are as telling as runs with all: what a fault explains is no violation, so only a run without it can show a bug that
looks the same.
"""

from __future__ import annotations

import random
from typing import NamedTuple

from dynein.settings import Settings

KINDS = (
    "throttled",
    "refused",
    "reset",
    "request_lost",
    "answer_lost",
    "straggler",
    "slow",
    "partial",
    "duplicate",
    "reorder",
    "skew",
    "step",
    "crash",
    "pause",
    "suspend",
    "partition",
    "outage",
    "bad_queue",
    "deploy",
    "scale",
    "shards",
    "poison",
)


class Weather:
    """How engines and network behave; changed while the run goes on."""

    def __init__(self) -> None:
        self.latency_s = 0.005
        self.slow = 0.0
        self.slow_s = 0.0
        self.partial = 0.0
        self.duplicate = 0.0
        self.reorder = False
        self.fates: list[tuple[str, float]] = []
        """(value of `network.Fate`, likelihood); what is left over is fine."""

    def clear_up(self) -> None:
        """No more faults."""
        self.__init__()  # type: ignore[misc]


class Scenario(NamedTuple):
    """One run, before it begins."""

    seed: int
    kinds: tuple[str, ...]
    settings: Settings
    bucket_width_s: int
    shard_count: int
    fleet: dict[str, int]
    storm_s: float
    """How long faults and the main workload last."""
    probe_s: float
    """How long the workload goes on afterwards, in good weather, once the fleet has recovered."""
    jobs: int
    skew_ms_max: int
    destinations: tuple[str, ...]

    def has(self, kind: str) -> bool:
        """Is this kind of fault in the mix?"""
        return kind in self.kinds

    @property
    def recovery_s(self) -> float:
        """How long after the last fault everything must be as good as new: every timeout there is, once over."""
        s = self.settings
        return s.visibility_timeout_s + 2 * s.lease_ttl_s + s.member_ttl_s + 2 * s.backoff_max_s + 10.0


def scenario_of(seed: int) -> Scenario:
    """The scenario of a seed."""
    rng = random.Random(f"scenario {seed}")
    kinds = _kinds(rng)
    tick_s = rng.choice((0.5, 1.0, 1.0))
    call_timeout_s = rng.choice((1.0, 2.0, 3.0))
    lease_ttl_s = 2 * tick_s + call_timeout_s + rng.choice((1.0, 3.0, 5.0))
    read_ahead_s = max(3 * tick_s, rng.choice((1.0, 2.0, 3.0)))
    hold_window_s = read_ahead_s + rng.choice((2.0, 3.0))
    bucket_width_s = rng.choice((2, 5, 10, 30))
    settings = Settings(
        tick_s=tick_s,
        call_timeout_s=call_timeout_s,
        lease_ttl_s=lease_ttl_s,
        read_ahead_s=read_ahead_s,
        hold_window_s=hold_window_s,
        visibility_timeout_s=int(hold_window_s + call_timeout_s) + rng.choice((2, 10, 20)),
        retire_grace_s=4 * lease_ttl_s + rng.choice((0.0, 20.0)),
        member_ttl_s=rng.choice((4.0, 8.0)),
        receive_wait_s=rng.choice((1, 5, 20)),
        ingest_receivers=rng.choice((1, 2, 4)),
        ingest_rate_per_s=rng.choice((20.0, 200.0, 10_000.0)),
        held_jobs_max=rng.choice((10, 100, 20_000)),
        page_jobs_max=rng.choice((1, 3, 250)),
        read_ahead_jobs_max=rng.choice((20, 50_000)),
        lane_waiting_max=rng.choice((10, 5_000)),
        backoff_max_s=rng.choice((2.0, 5.0)),
        # A lane forgets a failure after 60 s or so without a try; a budget must be longer than that to mean anything.
        retry_budget_s=rng.choice((80.0, 300.0)),
        pack_bytes_max=rng.choice((1_024, 61_440)),
        drain_s=10.0,
    )
    skew_ms_max = rng.choice((50, 500, 2_000, 15_000)) if "skew" in kinds or "step" in kinds else 0
    return Scenario(
        seed=seed,
        kinds=kinds,
        settings=settings,
        bucket_width_s=bucket_width_s,
        shard_count=rng.choice((1, 2, 4)),
        fleet={"api": rng.choice((1, 2)), "ingester": rng.choice((1, 2, 3)), "dispatcher": rng.choice((1, 2, 3))},
        storm_s=rng.choice((40.0, 80.0, 120.0)),
        probe_s=30.0,
        jobs=rng.choice((30, 100, 200)),
        skew_ms_max=skew_ms_max,
        destinations=tuple(f"q{i}" for i in range(rng.choice((1, 3)))) + ("f.fifo",) * rng.choice((0, 1)),
    )


def _kinds(rng: random.Random) -> tuple[str, ...]:
    mood = rng.random()
    if mood < 0.05:
        return ()
    if mood < 0.4:
        few = rng.sample(KINDS, rng.choice((1, 2, 3)))
        return tuple(kind for kind in KINDS if kind in few)
    share = 0.4 if mood < 0.8 else 0.9
    return tuple(kind for kind in KINDS if rng.random() < share)


def weather_of(scenario: Scenario, rng: random.Random) -> Weather:
    """The weather while the storm lasts."""
    weather = Weather()
    weather.latency_s = rng.choice((0.001, 0.005, 0.03))
    bad = rng.choice((0.01, 0.05, 0.2))
    fates = {
        "throttled": "throttled",
        "refused": "failed, without effect",
        "reset": "took effect, connection reset",
        "request_lost": "request lost",
        "answer_lost": "took effect, answer lost",
        "straggler": "takes effect after its caller gave up",
    }
    weather.fates = [(fate, bad / 2) for kind, fate in fates.items() if scenario.has(kind)]
    if scenario.has("slow"):
        weather.slow = rng.choice((0.02, 0.2))
        weather.slow_s = rng.choice((0.5, 1.0, 1.5)) * scenario.settings.call_timeout_s
    if scenario.has("partial"):
        weather.partial = bad
    if scenario.has("duplicate"):
        weather.duplicate = bad
    weather.reorder = scenario.has("reorder")
    return weather
