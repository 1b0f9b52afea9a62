"""One run, from seed to outcome."""

from __future__ import annotations

import asyncio
import gc
import logging
import math
import sys
import warnings
from collections import Counter
from typing import NamedTuple

from dynein.errors import DyneinError
from dynein.ledger.reader import LOOK_BACK_MS, closing_by
from tests.simulation.auditor import Auditor
from tests.simulation.checker import Checker
from tests.simulation.fault_injector import FaultInjector
from tests.simulation.flight import UnexpectedError
from tests.simulation.forger import Forger
from tests.simulation.loop import Deadlock, Livelock, SimulationLoop
from tests.simulation.process import pause
from tests.simulation.recovery import (
    BACKLOG_S,
    has_recovered,
    has_retired,
    is_idle,
    recovery_max_s,
    recovery_min_s,
    until,
)
from tests.simulation.redriving import redrive_all
from tests.simulation.scenario import fault_intensity_of, scenario_of
from tests.simulation.workload import Workload
from tests.simulation.world import World


class Outcome(NamedTuple):
    """The outcome of a run."""

    seed: int
    kinds: tuple[str, ...]
    violations: list[str]
    counts: Counter[str]
    """What happened to jobs, and how often."""
    met: Counter[str]
    """How often each kind of fault struck."""
    virtual_s: float
    steps: int
    lateness_ms_max: float
    digest: str
    trace: list[str]


class _LogMonitor(logging.Handler):
    """An unexpected error that the product logs is a violation."""

    def __init__(self, world: World) -> None:
        super().__init__(logging.WARNING)
        self._world = world

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        self._world.trace.note("log", record.getMessage())
        if error is not None and not isinstance(error, (DyneinError, UnexpectedError)):
            where = error.__traceback__
            while where is not None and where.tb_next is not None:
                where = where.tb_next
            at = f" at {where.tb_frame.f_code.co_filename}:{where.tb_lineno}" if where is not None else ""
            self._world.problems.append(f"logged: {record.getMessage()}: {type(error).__name__}: {error}{at}")


def simulate(seed: int, mix: tuple[str, ...] | None = None, *, keep_trace: bool = False) -> Outcome:
    """Run one seed. ``mix``: kinds of faults, in place of those that the seed would choose."""
    # Coroutines of killed processes must not be collected while others run: that would run their `finally` blocks.
    gc.disable()
    try:
        return _simulate(seed, mix, keep_trace=keep_trace)
    finally:
        hook, sys.unraisablehook = sys.unraisablehook, lambda *_: None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # coroutines of the killed that had not begun
            gc.collect()
        gc.enable()
        sys.unraisablehook = hook


def _simulate(seed: int, mix: tuple[str, ...] | None, *, keep_trace: bool) -> Outcome:
    scenario = scenario_of(seed, mix)
    loop = SimulationLoop()
    world = World(scenario, loop, keep_trace=keep_trace)
    loop.set_exception_handler(lambda _, context: world.problems.append(f"event loop: {_describe_error(context)}"))
    log = logging.getLogger("dynein")
    log_monitor = _LogMonitor(world)
    log.addHandler(log_monitor)
    propagated, log.propagate = log.propagate, False
    try:
        fault_injector = FaultInjector(world)
        forger = Forger(world)
        auditor = Auditor(world, fault_injector, forger)
        main = loop.create_task(_run_phases(world, fault_injector, auditor), context=world.network.context.copy())
        try:
            loop.run_until_complete(main)
        except (Deadlock, Livelock) as error:
            auditor.violations.append(f"{type(error).__name__}: {error}")
        checker = Checker(auditor)
        return Outcome(
            seed,
            scenario.kinds,
            checker.violations,
            auditor.counts,
            world.met,
            min(loop.time(), auditor.finished_at),
            loop.steps,
            checker.lateness_ms_max,
            world.trace.digest,
            list(world.trace.lines),
        )
    finally:
        log.removeHandler(log_monitor)
        log.propagate = propagated
        _discard(world, loop)


async def _run_phases(world: World, fault_injector: FaultInjector, auditor: Auditor) -> None:
    scenario, loop = world.scenario, world.loop
    world.trace.note("scenario", f"faults: {', '.join(scenario.kinds) or 'none'}; fleet: {scenario.fleet}")
    for kind, count in scenario.fleet.items():
        for _ in range(count):
            world.start(kind)
    await pause(loop, 2.0)
    vars(world.intensity).update(vars(fault_intensity_of(scenario, world.rng)))
    workload = Workload(world, auditor)
    background = [world.spawn(fault_injector.supervise()), world.spawn(auditor.bounds.watch())]
    injecting, forging = world.spawn(fault_injector.run()), world.spawn(auditor.forger.run())
    await workload.run(scenario.jobs, scenario.fault_phase_s - 2.0)
    await injecting
    await forging
    await pause(loop, max(0.0, scenario.fault_phase_s - loop.time()))
    await fault_injector.repair()
    await pause(loop, recovery_min_s(world))
    await until(world, lambda: has_recovered(world), recovery_max_s(world))
    await pause(loop, BACKLOG_S)
    auditor.calm_at = loop.time()
    world.trace.note("scenario", "must have recovered by now")
    await workload.run(max(10, scenario.jobs // 8), scenario.calm_phase_s, bursts=False)
    await until(world, lambda: not workload.active, math.inf)
    await until(world, lambda: is_idle(world), 60.0 + scenario.skew_ms_max / 500 + 15.0)
    auditor.bounds.check_shares()
    await _wind_down(world)
    for task in background:
        task.cancel()
    auditor.bounds.check_idle()
    await _close_books(world, auditor)


async def _wind_down(world: World) -> None:
    """All but one process of each kind stop in good order; one is enough to retire every bucket."""
    scenario, idle_at_ms = world.scenario, world.now_ms()
    world.trace.note("scenario", "winds down")
    surplus = [process for kind in scenario.fleet for process in world.alive(kind)[1:]]
    for stopping in [world.spawn(world.stop(process)) for process in surplus]:
        await stopping
    settings = world.settings
    if not scenario.to_the_end:
        await pause(world.loop, settings.call_timeout_s)  # until the last removal is answered
        return
    within_s = settings.retire_grace_s + 3 * (scenario.bucket_width_s + settings.lease_ttl_s) + 20.0
    await until(world, lambda: has_retired(world, idle_at_ms), within_s + scenario.skew_ms_max / 500)


async def _close_books(world: World, auditor: Auditor) -> None:
    """The last processes stop. The ledger is read once all its windows have closed, and dead letters are redriven."""
    auditor.finished_at = world.loop.time()
    processes = [process for kind in world.scenario.fleet for process in world.alive(kind)]
    for stopping in [world.spawn(world.stop(process)) for process in processes]:
        await stopping
    closing = closing_by(world.settings)
    last_ms = max((key.due_at_ms for key in world.books.of_key()), default=0)
    closed_at_ms = (last_ms // closing.window_ms + 1) * closing.window_ms + closing.grace_ms
    await pause(world.loop, max(0, closed_at_ms - world.now_ms()) / 1000 + 0.001)
    auditor.ledger = await world.ledger.read(*closing.closed(world.now_ms(), LOOK_BACK_MS))
    await redrive_all(auditor)


def _describe_error(context: dict[str, object]) -> str:
    error = context.get("exception")
    return f"{context.get('message')}: {type(error).__name__}: {error}" if error else str(context.get("message"))


def _discard(world: World, loop: SimulationLoop) -> None:
    """Let everything be collected without warnings, which interrupted code causes when it is thrown away."""
    loop.set_exception_handler(lambda *_: None)
    loop.end()
    for process in world.processes:
        process.discard()
    for task in asyncio.all_tasks(loop):
        task._log_destroy_pending = False  # type: ignore[attr-defined]
