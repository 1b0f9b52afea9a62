"""How late a job may be: not at all in the calm phase; in the fault phase, as late as its faults explain."""

from __future__ import annotations

from dynein.core.job_token import TokenKind
from tests.simulation.process import ProcessClock
from tests.simulation.scenario import Scenario

_JITTER_MS = 1_500.0
"""A tick, some calls, an orderly handover between two dispatchers."""
_AMPLE = 1_000
_HARMLESS = {
    "duplicate": 0.0,
    "reorder": 0.0,
    "poison": 0.0,
    "forged": 0.0,
    "shards": 0.0,
    "skew": 0.0,
    "step": 0.0,
    "partial": 3_000.0,
}
"""Kinds of faults that do not explain a late job, or only up to so many milliseconds."""


def calm_phase_bound_ms(scenario: Scenario, kind: TokenKind, sender: ProcessClock) -> float:
    """By how much a job may be late without faults. Its sender waits for its due time by its own clock."""
    bound_ms = _JITTER_MS + max(0, -sender.offset_ms_min)
    if scenario.settings.read_ahead_jobs_max < _AMPLE:
        # A dispatcher whose buffer is full of jobs due soon has no room for one moved before them.
        bound_ms += scenario.settings.read_ahead_s * 1000
    if scenario.settings.held_jobs_max < _AMPLE:
        # Nor has an ingester that holds as many jobs due later as it may.
        bound_ms += scenario.settings.hold_window_s * 1000
    if kind is TokenKind.SQS_DELAYED:
        # SQS counts the delay from when the message reaches it, and the call may have been slow.
        bound_ms += scenario.settings.call_timeout_s * 1000
    return bound_ms


def fault_phase_bound_ms(scenario: Scenario, kind: TokenKind, sender: ProcessClock) -> float | None:
    """The same in the fault phase. ``None``: its faults explain any lateness, or memory bounds are very low."""
    settings = scenario.settings
    least = min(
        settings.ingest_rate_per_s, settings.held_jobs_max, settings.read_ahead_jobs_max, settings.lane_waiting_max
    )
    if least < _AMPLE or not all(kind in _HARMLESS for kind in scenario.kinds):
        return None
    bursts_ms = 1_000 + 40 * 200.0 / settings.page_jobs_max  # a burst is read page by page, and some take long
    return calm_phase_bound_ms(scenario, kind, sender) + sum(_HARMLESS[kind] for kind in scenario.kinds) + bursts_ms
