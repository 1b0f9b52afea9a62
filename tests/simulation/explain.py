"""Which named fault explains that something happened twice. What no fault explains is a violation.

A second send has a source: a page that contained its trigger once more, or an inbound message that was received once
more. So the question is never what else failed in a run, but why that page still contained the trigger, or why that
message was received again; and only a fault of the process that should have removed it, at the time when it should,
explains that.
"""

from __future__ import annotations

from itertools import pairwise

from dynein.core.keys import TriggerKey
from dynein.server.assembly import DEAD_LETTERS
from tests.simulation.evidence import Attempt
from tests.simulation.flight import Fate, Flight
from tests.simulation.world import World


class Explainer:
    """Explains by the evidence of a run that is over."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._evidence = world.evidence

    def why(self, key: TriggerKey, earlier: Flight, later: Flight) -> str | None:
        """Why a job that ``earlier`` sent was sent again by ``later``."""
        if not earlier.answered:
            return "the response to a send was lost"
        read = self._last_read(key, later)
        received = self._last_receive(key, later)
        if read is not None and (received is None or read.at > received.at):
            return self._why_read(key, earlier, later, read)
        if received is not None:
            # Or it found the trigger when it stored it once more, into a bucket that is retired.
            return self._why_came_again(key, later.began_at) or self._why_stored_again(
                key, earlier, later.began_at, by=later.process
            )
        return None

    def resurrected(self, key: TriggerKey) -> bool:
        """May the trigger of a job that was delivered, cancelled or moved stand in the table at the end?

        A write may take effect after its writer gave up, or its writer may have been killed before it checked
        whether the bucket was retired, while another ingester finished the same message. ``dynein audit`` finds it.
        """
        return any(self._unfinished(add) for add in self._evidence.adds.get(key, []))

    # --- a trigger was read again -----------------------------------------------------------------------------------

    def _last_read(self, key: TriggerKey, sending: Flight) -> Attempt | None:
        """The page that gave the sender the trigger."""
        if not self._may_be(sending, "dispatcher"):
            return None
        reads = self._evidence.reads.get(key, [])
        mine = [r for r in reads if r.flight.process == sending.process and r.at <= sending.began_at]
        return max(mine, key=lambda read: read.at, default=None)

    def _why_read(self, key: TriggerKey, earlier: Flight, later: Flight, read: Attempt) -> str | None:
        if self._removed(key, earlier.began_at, read.at):
            return self._why_stored_again(key, earlier, read.at)
        if self._may_be(earlier, "ingester"):
            # It was both stored and held in memory: its message was received more than once.
            again = self._why_came_again(key, read.at)
            if again is not None:
                return again
        if read.at >= earlier.began_at:
            if later.process == earlier.process and not self._changed_hands(key.shard, earlier.began_at, read.at):
                return None  # it held it, or was removing it: that the trigger was still there is no reason to send it
            why = self._why_not_removed(key, earlier, read.at)
            if why is not None:
                return why
        # Two owners at once: one was suspended, did not notice that time had passed, and so trusted its lease (and
        # perhaps read under it) after it had expired.
        disturbed_by, lease_s = self._evidence.disturbed_by, self._lease_s
        return disturbed_by(later.process, read.at - lease_s, later.began_at, "suspended") or disturbed_by(
            earlier.process, earlier.began_at - lease_s, earlier.began_at, "suspended"
        )

    def _why_not_removed(self, key: TriggerKey, earlier: Flight, read_at: float) -> str | None:
        """Why was the trigger still there, when it was read again?"""
        disturbance = self._evidence.disturbed_by(earlier.process, earlier.began_at, read_at)
        if disturbance is not None:
            return disturbance
        tried = [a for a in self._evidence.removals.get(key, []) if a.flight.process == earlier.process]
        tried = [removal for removal in tried if removal.flight.began_at <= read_at]
        if tried and self._in_trouble(tried[-1], read_at) and read_at - tried[-1].flight.began_at < self._retry_s:
            return "a removal failed"
        shard = [take for take in self._evidence.handovers if take.shard == key.shard and take.previous is not None]
        if any(take.owner is not None and earlier.began_at <= take.at <= read_at for take in shard):
            return "the lease was lost between send and removal"
        return None

    def _removed(self, key: TriggerKey, since: float, until: float) -> list[Attempt]:
        return [a for a in self._evidence.removals.get(key, []) if a.done and since <= a.at <= until]

    def _why_stored_again(self, key: TriggerKey, earlier: Flight, until: float, by: str | None = None) -> str | None:
        """Why was a trigger stored again that had been removed? ``by``: the process that must have done so."""
        removed = self._removed(key, earlier.began_at, until)
        adds = [a for a in self._evidence.adds.get(key, []) if a.done and removed and removed[0].at <= a.at <= until]
        if not adds or by not in (None, adds[-1].flight.process):
            return None
        writers = [add.flight.process for add in adds]
        for add in self._evidence.adds[key]:
            if add.flight.process in writers and self._in_trouble(add, adds[-1].at):
                return "the response to a write was lost"
        return self._why_came_again(key, until)

    # --- an inbound message came again --------------------------------------------------------------------------------

    def _last_receive(self, key: TriggerKey, sending: Flight) -> Attempt | None:
        """The receive that gave the sender the job."""
        if not self._may_be(sending, "ingester"):
            return None
        received = [r for m in self._evidence.carriers.get(key, {}) for r in self._evidence.receipts.get(m, [])]
        mine = [r for r in received if r.flight.process == sending.process and r.at <= sending.began_at]
        return max(mine, key=lambda receipt: receipt.at, default=None)

    def _why_came_again(self, key: TriggerKey, until: float) -> str | None:
        """Why was any message with the job received more than once?"""
        for message in self._evidence.carriers.get(key, {}):
            why = self._why_message_came_again(message, until)
            if why is not None:
                return why
        return self._why_carried_twice(key)

    def _why_carried_twice(self, key: TriggerKey) -> str | None:
        carriers = self._evidence.carriers.get(key, {})
        if len(carriers) > 1 and not all(sending.answered for sending in carriers.values()):
            return "the response to an inbound send was lost"
        return None

    def _why_message_came_again(self, message: str, until: float) -> str | None:
        if message in self._evidence.quirks:
            return self._evidence.quirks[message]
        receipts = [receipt for receipt in self._evidence.receipts.get(message, []) if receipt.at <= until]
        for receipt, again in pairwise(receipts):
            if not receipt.flight.answered:
                return "inbound received twice: the response to a receive was lost"
            if self._slow(receipt.flight):
                return "inbound received twice: the response to a receive was slow"
            disturbance = self._evidence.disturbed_by(receipt.flight.process, receipt.flight.began_at, again.at)
            if disturbance is not None:
                return f"inbound received twice: {disturbance}"
            for book, what in ((self._evidence.deletes, "a delete"), (self._evidence.extensions, "an extension")):
                if any(self._in_trouble(a, again.at) for a in book.get(message, []) if a.flight.began_at >= receipt.at):
                    return f"inbound received twice: {what} failed"
        return None

    # ------------------------------------------------------------------------------------------------------------------

    def _may_be(self, flight: Flight, role: str) -> bool:
        """May the call be that role's? All roles of a process share one connection to the dead-letter queue."""
        process = next(p for p in self._world.processes if p.name == flight.process)
        return role in process.roles if flight.role == DEAD_LETTERS else flight.role == role

    @property
    def _lease_s(self) -> float:
        return self._world.settings.lease_ttl_s + self._world.settings.call_timeout_s

    @property
    def _retry_s(self) -> float:
        """What failed is retried within this time, or has been given up."""
        return self._world.settings.backoff_max_s + self._world.settings.call_timeout_s + 1.0

    def _changed_hands(self, shard: int, since: float, until: float) -> bool:
        return any(h.shard == shard and since <= h.at <= until for h in self._evidence.handovers)

    def _in_trouble(self, attempt: Attempt, until: float) -> bool:
        """Did a call fail, or was it slow? That it was merely under way explains nothing."""
        if not attempt.troubled(until):
            return False
        return not attempt.done or not attempt.flight.answered or self._slow(attempt.flight)

    def _slow(self, flight: Flight) -> bool:
        return flight.there_s + flight.back_s > self._world.settings.tick_s / 2

    def _unfinished(self, add: Attempt) -> bool:
        writer = next(p for p in self._world.processes if p.name == add.flight.process)
        return add.flight.fate is Fate.STRAGGLER or not add.flight.answered or writer.died_at is not None
