"""One run, from seed to verdict."""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
import warnings
from collections import Counter
from typing import NamedTuple

from dynein.errors import DyneinError
from tests.simulation.auditor import Auditor
from tests.simulation.loop import Deadlock, Livelock, SimulationLoop
from tests.simulation.process import pause
from tests.simulation.saboteur import Saboteur
from tests.simulation.scenario import Scenario, scenario_of, weather_of
from tests.simulation.workload import Workload
from tests.simulation.world import World


class Outcome(NamedTuple):
    """What came of a run."""

    scenario: Scenario
    violations: list[str]
    counts: Counter[str]
    virtual_s: float
    steps: int
    lateness_ms_max: float
    digest: str
    trace: list[str]


class _Alarm(logging.Handler):
    """Whatever the product logs about an error that it did not foresee is a violation."""

    def __init__(self, world: World) -> None:
        super().__init__(logging.WARNING)
        self._world = world

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        self._world.trace.note("log", record.getMessage())
        if error is not None and not isinstance(error, DyneinError):
            where = error.__traceback__
            while where is not None and where.tb_next is not None:
                where = where.tb_next
            at = f" at {where.tb_frame.f_code.co_filename}:{where.tb_lineno}" if where is not None else ""
            self._world.problems.append(f"logged: {record.getMessage()}: {type(error).__name__}: {error}{at}")


def simulate(seed: int, *, keep_trace: bool = False) -> Outcome:
    """Run one seed."""
    # What the dead leave behind must not be tidied away while others run: that would call their `finally` blocks.
    gc.disable()
    try:
        return _simulate(seed, keep_trace=keep_trace)
    finally:
        hook, sys.unraisablehook = sys.unraisablehook, lambda *_: None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # coroutines of the killed that had not begun
            gc.collect()
        gc.enable()
        sys.unraisablehook = hook


def _simulate(seed: int, *, keep_trace: bool) -> Outcome:
    scenario = scenario_of(seed)
    loop = SimulationLoop()
    world = World(scenario, loop, keep_trace=keep_trace)
    loop.set_exception_handler(lambda _, context: world.problems.append(f"event loop: {_words(context)}"))
    log = logging.getLogger("dynein")
    alarm = _Alarm(world)
    log.addHandler(alarm)
    propagated, log.propagate = log.propagate, False
    try:
        saboteur = Saboteur(world)
        auditor = Auditor(world, saboteur)
        main = loop.create_task(_play(world, saboteur, auditor), context=world.network.context.copy())
        try:
            loop.run_until_complete(main)
        except (Deadlock, Livelock) as error:
            auditor.violations.append(f"{type(error).__name__}: {error}")
        violations = auditor.verdict()
        return Outcome(
            scenario,
            violations,
            auditor.counts,
            loop.time(),
            loop.steps,
            auditor.lateness_ms_max,
            world.trace.digest,
            list(world.trace.lines),
        )
    finally:
        log.removeHandler(alarm)
        log.propagate = propagated
        _bury(world, loop)


async def _play(world: World, saboteur: Saboteur, auditor: Auditor) -> None:
    scenario, loop = world.scenario, world.loop
    world.trace.note("scenario", f"faults: {', '.join(scenario.kinds) or 'none'}; fleet: {scenario.fleet}")
    for role, count in scenario.fleet.items():
        for _ in range(count):
            world.start(role)
    await pause(loop, 2.0)
    stormy = weather_of(scenario, world.rng)
    vars(world.weather).update(vars(stormy))
    workload = Workload(world, auditor)
    world.spawn(saboteur.supervise())
    storm = world.spawn(saboteur.run())
    await workload.run(scenario.jobs, scenario.storm_s - 2.0)
    await storm
    await pause(loop, max(0.0, scenario.storm_s - loop.time()))
    await saboteur.repair()
    await pause(loop, scenario.recovery_s)
    auditor.quiet_at = loop.time() + 1.0
    await pause(loop, 1.0)
    world.trace.note("scenario", "must have recovered by now")
    # No bursts: what they may take depends on bounds that a scenario may have set very low.
    await workload.run(max(10, scenario.jobs // 8), scenario.probe_s, bursts=False)
    await _until_idle(world, workload)
    # Every bucket that was written to must be retired by the end.
    settings = scenario.settings
    await pause(
        loop,
        settings.retire_grace_s
        + 3 * scenario.bucket_width_s
        + 3 * settings.lease_ttl_s
        + scenario.skew_ms_max / 500
        + 20,
    )


async def _until_idle(world: World, workload: Workload) -> None:
    """Until the users have gone, and the last job has long been due."""
    while workload.active:
        await pause(world.loop, 1.0)
    last_ms = max((trigger.key.due_at_ms for trigger in world.table.triggers()), default=0)
    await pause(world.loop, max(0.0, (last_ms - world.now_ms()) / 1000) + world.scenario.skew_ms_max / 500 + 15.0)


def _words(context: dict[str, object]) -> str:
    error = context.get("exception")
    return f"{context.get('message')}: {type(error).__name__}: {error}" if error else str(context.get("message"))


def _bury(world: World, loop: SimulationLoop) -> None:
    """Let everything be collected, in silence: interrupted code complains when it is thrown away."""
    loop.set_exception_handler(lambda *_: None)
    loop.end()
    for process in world.processes:
        process.bury()
    for task in asyncio.all_tasks(loop):
        task._log_destroy_pending = False  # type: ignore[attr-defined]
