"""The end of a run: all comes to rest, processes end as an operator would end them, and the accounts are checked."""

from __future__ import annotations

import asyncio
import datetime as dt
import json

from dynein.core.job import decode_job
from tests.acceptance.fleet import HANG_S, QUICK, monotonic, now_ms, pause
from tests.chaos.accounts import Sighting
from tests.chaos.excuses import STARVED, Fault
from tests.chaos.faults import Chaos
from tests.chaos.ledger import Death
from tests.chaos.settings import LEASE_MS, VISIBILITY_MS

LOST_MS = {"lease.lost": LEASE_MS, "inbound.lost": VISIBILITY_MS}
"""What a process logs that has been frozen or starved for too long, and how long ago, at least, that began."""
BEGINNING_MS = 1_000
"""What ended when a process had just begun, as the lack of it did, has cost it nothing."""


async def finish(disturbed: Chaos) -> str:
    """The sum of the accounts, for people to read. Fails if anything is not as promised."""
    await _rest(disturbed)
    audit = await disturbed.fleet.run("audit", "--json", **QUICK)
    assert audit.code == 0, audit
    for name, process in disturbed.processes.items():
        assert process.process.returncode is None, f"{name} ended by itself: {process.log.read_text()}"
        await process.ready(disturbed.fleet.http)
    ends = await asyncio.gather(*(process.terminate() for process in disturbed.processes.values()))
    assert ends == [0] * len(disturbed.processes), ends
    await _rest(disturbed)
    disturbed.accounts.faults += _starved(disturbed)
    stored = await disturbed.aws.stored()
    assert json.loads(audit.out)["triggers"] == stored.records
    for trigger in stored.triggers:
        body = decode_job(trigger.record).body
        sighting = Sighting(trigger.token, now_ms())
        disturbed.accounts.seen(lambda account: account.stored, body, sighting, f"stored {trigger.token}")
    return disturbed.accounts.check()


def deaths(disturbed: Chaos) -> list[Death]:
    """Who ended without posting its last counts to the ledger, being killed, or by its own account."""
    own = [
        Death(name, _logged_at_ms(line))
        for name, process, _ in disturbed.started
        for line in process.logged("ledger.counts_missing")
    ]
    return disturbed.killed + own


async def _rest(disturbed: Chaos) -> None:
    """Return once nothing is on its way: no message anywhere, and no trigger but for those due much later."""
    deadline = monotonic() + HANG_S
    while unrest := await disturbed.aws.under_way() or await _not_seen(disturbed):
        assert monotonic() < deadline, f"no rest within {HANG_S} s: {unrest}"
        await pause(0.3)


async def _not_seen(disturbed: Chaos) -> str:
    """Jobs that were accepted and are nowhere; nothing if there are none."""
    tokens = {trigger.token for trigger in (await disturbed.aws.stored()).triggers}
    missing = [account for account in disturbed.accounts.waiting_for() if account.token not in tokens]
    return f"{len(missing)} missing: {missing[:3]}" if missing else ""


def _starved(disturbed: Chaos) -> list[Fault]:
    """Who had to wait for a processor, or for the engine; and what a process lost by that, though no fault met it."""
    made = [fault for fault in disturbed.accounts.faults if fault.lost]
    starved = disturbed.starvation.faults + [
        Fault(STARVED, None, *span, repeats=False, lost=False) for span in disturbed.accounts.evidence.engine_slow
    ]
    losses = [
        (Fault(STARVED, frozenset({name}), at_ms - lost_ms, at_ms), ready_ms)
        for name, process, ready_ms in disturbed.started
        for event, lost_ms in LOST_MS.items()
        for at_ms in map(_logged_at_ms, process.logged(event))
    ]
    return starved + [
        loss
        for loss, ready_ms in losses
        if any(map(loss.overlaps, starved))
        and not any(fault.until_ms > ready_ms + BEGINNING_MS and loss.overlaps(fault) for fault in made)
    ]


def _logged_at_ms(line: str) -> int:
    return int(dt.datetime.fromisoformat(line.split(" ", 1)[0]).timestamp() * 1000)
