"""What every part of a process needs and none of them owns: clock, randomness, metrics and the ledger's counts."""

from __future__ import annotations

import random
from typing import NamedTuple

from dynein.core.ledger import NOT_KEPT, Tally
from dynein.observability.telemetry import Telemetry
from dynein.runtime.clock import Clock, SystemClock


class Context(NamedTuple):
    """One for each process, built where the process is assembled, so that tests and the simulation control all of it.

    Only what nearly every part uses is in here. What a part works *on* (queues, stores, settings) is passed separately.
    """

    clock: Clock
    rng: random.Random
    """For jitter and choices; not for secrets."""
    telemetry: Telemetry
    tally: Tally = NOT_KEPT
    """Where jobs are counted that come in and go out; `NOT_KEPT` counts nothing."""


def command_context() -> Context:
    """For a command, which nobody scrapes and which counts no jobs: the machine's clock, metrics of its own."""
    return Context(SystemClock(), random.Random(), Telemetry())  # noqa: S311 - jitter, not secrecy
