"""What every part of a process needs and none of them owns: time, chance, metrics and the ledger's counts."""

from __future__ import annotations

import random
from typing import NamedTuple

from dynein.core.ledger import NOT_KEPT, Tally
from dynein.observability.telemetry import Telemetry
from dynein.runtime.clock import Clock, SystemClock


class Context(NamedTuple):
    """One a process, built where the process is put together, so that tests and the simulation own all of it.

    Only what nearly everybody uses is in here. What a part works *on* (queues, stores, settings) it is given by name.
    """

    clock: Clock
    rng: random.Random
    """For jitter and choices; nothing secret comes from it."""
    telemetry: Telemetry
    tally: Tally = NOT_KEPT
    """Where jobs are counted that come in and go out; `NOT_KEPT` counts nothing."""


def command_context() -> Context:
    """For a command, which nobody scrapes and which counts no jobs: the machine's clock, metrics of its own."""
    return Context(SystemClock(), random.Random(), Telemetry())  # noqa: S311 - jitter, not secrecy
