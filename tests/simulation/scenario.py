"""What a seed means: a fleet, its settings and a mix of faults.

Swarm testing (Groce et al., ISSTA 2012): a seed switches each kind of fault on or off by itself. Runs with few kinds
find as much as runs with all: what a fault explains is no violation, so only a run without it can show a bug with the
same effect.

A run has two phases. In the *fault phase* faults are injected; then all are repaired, the fleet has time to recover,
and in the *calm phase* jobs must be delivered as if there had never been any.
"""

from __future__ import annotations

import random
from typing import NamedTuple

from pydantic import SecretStr

from dynein.settings import Settings
from tests.simulation.process import ALL_ROLES

SECRET = "a secret for the simulation"
KINDS = {
    "throttled": "a call is throttled",
    "refused": "a call fails without effect",
    "reset": "a call takes effect, and its connection is reset",
    "request_lost": "a call is lost on its way",
    "response_lost": "a call takes effect, and its response is lost",
    "straggler": "a call takes effect long after its caller gave up",
    "unexpected": "a call of an ingester to the table ends with an error that nobody has foreseen",
    "slow": "a call or its response takes up to one and a half times the call timeout",
    "partial": "half of a batch fails inside a response with status 200",
    "hot": "a partition of the table takes no writes until shortly before its bucket may be retired",
    "duplicate": "SQS returns a message and keeps it visible, or forgets a delete",
    "redeliver": "SQS delivers inbound messages again, deleted ones too: some, or all there ever were",
    "reorder": "a standard queue returns messages in any order",
    "skew": "wall clocks are off, each by its own amount",
    "step": "a wall clock steps",
    "crash": "a process dies at any await",
    "pause": "a process is stopped for up to minutes, and then acts on what it knew before",
    "suspend": "the same, and its monotonic clock is stopped too",
    "partition": "a process is cut off from SQS, from DynamoDB, or both",
    "renewals": "the writes to shard records of one process, or of all, fail for a while, and nothing else",
    "conflict": "writes and transactions that meet on one shard record are refused, as DynamoDB's are",
    "outage": "SQS or DynamoDB is down for all processes",
    "bad_queue": "a destination fails, throttles, refuses for good, in whole or in part; or is removed for a while",
    "deploy": "every process of a kind is replaced in turn",
    "scale": "processes are added and stopped",
    "shards": "the shard count is raised",
    "poison": "unreadable messages are in the inbound queue",
    "forged": "another program writes to the inbound and the dead-letter queue, without the secret",
}
"""Kinds of faults, and what each is."""
_EXPLAINING = tuple(kind for kind in KINDS if kind != "forged")
"""Those that may explain what happened to a job. A forged message explains nothing, so it is drawn by itself."""
_FORGED = 0.2
"""Share of the seeds."""
_PAIRS = (
    ("partition", "slow"),
    ("partition", "bad_queue"),
    ("pause", "bad_queue"),
    ("pause", "straggler"),
    ("suspend", "scale"),
    ("suspend", "slow"),
    ("crash", "duplicate"),
    ("hot", "crash"),
    ("crash", "partial"),
    ("scale", "shards"),
    ("redeliver", "crash"),
    ("redeliver", "hot"),
    ("unexpected", "redeliver"),
    ("renewals", "partial"),
    ("renewals", "redeliver"),
    ("conflict", "slow"),
    ("shards", "response_lost"),
)
"""Kinds that find more together than each by itself."""


class FaultIntensity:
    """How likely each fault of engines and network is; changes from phase to phase."""

    def __init__(self) -> None:
        self.latency_s = 0.005
        self.long_pages = 0.0
        self.long_page_s = 0.0
        """A page of triggers takes long to arrive at times, whatever the faults: much can happen meanwhile."""
        self.slow = 0.0
        self.slow_s = 0.0
        self.partial = 0.0
        self.hot = 0.0
        """How likely a partition is to take no writes."""
        self.duplicate = 0.0
        self.conflict_s = 0.0
        """How long a write to a shard record may meet another."""
        self.reorder = False
        self.fates: list[tuple[str, float]] = []
        """(kind, which is a `network.Fate`, and likelihood); all other calls are fine."""

    def stop_faults(self) -> None:
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
    """Kind of process (a role, or all of them) to how many."""
    fault_phase_s: float
    """How long faults and the main workload last."""
    calm_phase_s: float
    """How long the workload goes on without faults, once the fleet has recovered."""
    faults_per_s: float
    """How often a fault of the fault injector begins. Where they are rare, each can be seen to be over in time."""
    jobs: int
    skew_ms_max: int
    destinations: tuple[str, ...]
    http: bool
    """Users call the HTTP application, not the submission service behind it."""
    to_the_end: bool
    """It goes on until every bucket that was written to must be retired."""
    alteration_rate: float
    """How likely a user is to cancel, move or look up a job, and to do so again. Late writes, of which moves are most,
    have the shard read again: that finds what a bug has left unread, so there must be runs with few."""

    def has(self, kind: str) -> bool:
        """Is this kind of fault in the mix?"""
        return kind in self.kinds

    @property
    def recovery_s(self) -> float:
        """How long after the last fault the fleet must have recovered: the sum of all timeouts."""
        s = self.settings
        return s.visibility_timeout_s + 2 * s.lease_ttl_s + s.member_ttl_s + 2 * s.backoff_max_s + 10.0


def scenario_of(seed: int, mix: tuple[str, ...] | None = None) -> Scenario:
    """The scenario of a seed. ``mix``: kinds of faults, in place of those that the seed would choose."""
    rng = random.Random(f"scenario {seed}")
    kinds = _kinds(rng)
    if random.Random(f"attacker {seed}").random() < _FORGED:
        kinds += ("forged",)
    if mix is not None:
        kinds = tuple(kind for kind in KINDS if kind in mix)
    tick_s = rng.choice((0.5, 1.0, 1.0))
    call_timeout_s = rng.choice((0.7, 1.0, 2.0))
    lease_ttl_s = 2 * tick_s + call_timeout_s + rng.choice((0.5, 1.0, 4.0))
    # More than a lease is trusted for, at times: then what is in memory falls due while nobody may send it.
    read_ahead_s = max(3 * tick_s, rng.choice((1.0, 2.0, 3.0, 6.0)))
    hold_window_s = read_ahead_s + rng.choice((2.0, 3.0))
    # What a bug has left unread is found when its bucket comes up for retirement: some runs end before that.
    to_the_end, long_open = rng.choice(((True, False), (True, False), (False, False), (False, True)))
    bucket_width_s = rng.choice((15, 60) if long_open else (2, 5, 15))
    skew_ms_max = rng.choice((50, 500, 2_000, 15_000)) if "skew" in kinds or "step" in kinds else 0
    # A lane forgets a failure after 60 s or so without a try; a budget must be longer than that to mean anything.
    retry_budget_s = rng.choice((80.0, 300.0))
    ledger_interval_s = rng.choice((1.0, 3.0, 10.0))
    settings = Settings(
        tick_s=tick_s,
        call_timeout_s=call_timeout_s,
        lease_ttl_s=lease_ttl_s,
        read_ahead_s=read_ahead_s,
        hold_window_s=hold_window_s,
        visibility_timeout_s=int(hold_window_s + call_timeout_s) + rng.choice((2, 10, 20)),
        retire_grace_s=max(4 * lease_ttl_s, 2.2 * skew_ms_max / 1000)
        + (300.0 if long_open else rng.choice((0.0, 10.0, 60.0))),
        clock_skew_max_s=1.1 * max(skew_ms_max, 1) / 1000,
        member_ttl_s=min(rng.choice((4.0, 8.0)), lease_ttl_s),
        receive_wait_s=rng.choice((2, 5, 20)),
        ingest_receivers=rng.choice((1, 1, 3)),
        ingest_rate_per_s=rng.choice((20.0, 200.0, 10_000.0)),
        held_jobs_max=rng.choice((10, 100, 20_000)),
        page_jobs_max=rng.choice((1, 3, 250)),
        read_ahead_jobs_max=rng.choice((20, 50_000)),
        lane_waiting_max=rng.choice((10, 5_000)),
        backoff_max_s=rng.choice((2.0, 5.0)),
        retry_budget_s=retry_budget_s,
        pack_bytes_max=rng.choice((1_024, 61_440)),
        drain_s=10.0,
        ledger_interval_s=ledger_interval_s,
        ledger_window_s=rng.choice((1, 10, 60)),
        ledger_grace_s=retry_budget_s + 2 * ledger_interval_s + rng.choice((0.0, 10.0)),
        # Forecasts are made in some runs only, and small: they would be most of all calls, and no job depends on them.
        forecast_interval_s=rng.choice((0.0, 0.0, 20.0)),
        forecast_read_units_max=10,
        token_secrets=SecretStr(SECRET),
    )
    return Scenario(
        seed=seed,
        kinds=kinds,
        settings=settings,
        bucket_width_s=bucket_width_s,
        shard_count=rng.choice((1, 2, 4)),
        fleet=_fleet(rng),
        fault_phase_s=rng.choice((20.0, 30.0, 30.0, 40.0, 100.0)),
        calm_phase_s=12.0,
        faults_per_s=rng.choice((0.7, 0.7, 0.1)),
        jobs=rng.choice((30, 100, 200)),
        skew_ms_max=skew_ms_max,
        destinations=tuple(f"q{i}" for i in range(rng.choice((1, 3)))) + ("f.fifo",) * rng.choice((0, 1)),
        http=rng.random() < 0.3,
        to_the_end=to_the_end,
        alteration_rate=rng.choice((0.0, 0.6, 0.6, 0.75)),
    )


def _fleet(rng: random.Random) -> dict[str, int]:
    if rng.random() < 0.3:
        return {ALL_ROLES: rng.choice((1, 2, 3))}
    return {"api": rng.choice((1, 2)), "ingester": rng.choice((1, 2, 3)), "dispatcher": rng.choice((1, 2, 3))}


def _kinds(rng: random.Random) -> tuple[str, ...]:
    mood = rng.random()
    if mood < 0.03:
        return ()
    if mood < 0.15:
        return rng.choice(_PAIRS)
    if mood < 0.6:
        few = rng.sample(_EXPLAINING, rng.choice((1, 2, 2, 3, 4)))
        return tuple(kind for kind in _EXPLAINING if kind in few)
    share = 0.4 if mood < 0.85 else 0.9
    return tuple(kind for kind in _EXPLAINING if rng.random() < share)


def fault_intensity_of(scenario: Scenario, rng: random.Random) -> FaultIntensity:
    """The intensity in the fault phase."""
    intensity = FaultIntensity()
    intensity.latency_s = rng.choice((0.001, 0.01, 0.06))
    intensity.long_pages, intensity.long_page_s = rng.choice(((0.1, 0.1), (0.3, 0.5)))
    bad = rng.choice((0.01, 0.05, 0.2))
    fates = ("throttled", "refused", "reset", "request_lost", "response_lost", "straggler", "unexpected")
    intensity.fates = [(kind, bad / 2) for kind in fates if scenario.has(kind)]
    if scenario.has("slow"):
        intensity.slow = rng.choice((0.02, 0.2))
        intensity.latency_s = rng.choice((0.005, 0.03, 0.15))
        intensity.slow_s = rng.choice((0.5, 1.0, 1.5)) * scenario.settings.call_timeout_s
    if scenario.has("partial"):
        intensity.partial = bad
    if scenario.has("hot"):
        intensity.hot = rng.choice((0.1, 0.5))
    if scenario.has("duplicate"):
        intensity.duplicate = bad
    if scenario.has("conflict"):
        intensity.conflict_s = rng.choice((0.005, 0.02))
    intensity.reorder = scenario.has("reorder")
    return intensity
