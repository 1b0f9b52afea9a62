"""Which named fault explains that something happened twice. What no fault explains is a violation.

A second send has a source: a page that contained its trigger once more, or an inbound message that was received once
more. So the question is never what else failed in a run, nor even that the message came again. It is whether whoever
sent could have known, by what the product does for that very case:

*remembering*   An ingester that has sent a job of a message, or has finished the message, acts on it no second time.
*claiming*      Of several creates of one prepared job, only the first to be ingested goes ahead.
*looking up*    A job of a message that was received before, and that is in the store all the time, is its dispatcher's.
*removing*      A trigger that was sent is gone after one call. Only trouble with that call, or of that process while it
                made it, explains that another dispatcher still finds the trigger.
*settling*      A dispatcher does not read a shard again before its own calls for that shard are over.
*extending*     A message stays invisible. Only trouble since it was last made so explains that it comes again.
"""

from __future__ import annotations

import math
from itertools import pairwise

from dynein.core.keys import TriggerKey, bucket_of
from dynein.server.assembly import DEAD_LETTERS
from tests.simulation.evidence import Attempt
from tests.simulation.flight import Fate, Flight
from tests.simulation.process import Process
from tests.simulation.world import World

_CRASH = "crash"


class Explainer:
    """Explains by the evidence of a run that is over."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._evidence = world.evidence

    def why(self, key: TriggerKey, earlier: Flight, later: Flight) -> str | None:
        """Why a job that ``earlier`` sent was sent again by ``later``."""
        if not earlier.answered and not (earlier.process != later.process and self._may_be(later, "ingester")):
            return "the response to a send was lost"
        read = self._last_read(key, later)
        received = self._last_receive(key, later)
        if read is not None and (received is None or read.at > received.at):
            return self._why_read(key, earlier, later, read)
        if received is not None:
            return self._why_sent_from_memory(key, earlier, later)
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
            sent_from = self._acted_on(key, earlier.process, earlier.began_at)
            if (
                self._was_an_ingester(earlier)
                and sent_from
                and all(self._could_look_up(key, r, earlier.began_at) for r in sent_from)
            ):
                return None
            again = self._why_came_again(key, max(read.at, earlier.began_at))
            if again is not None:
                return again
        if read.at >= earlier.began_at:
            if later.process == earlier.process and self._knew(key, earlier, read):
                return None
            why = self._why_not_removed(key, earlier, later, read.at)
            if why is not None:
                return why
        # Two owners at once: one was suspended, did not notice that time had passed, and so trusted its lease (and
        # perhaps read under it) after it had expired.
        disturbed_by, lease_s = self._evidence.disturbed_by, self._lease_s
        return disturbed_by(later.process, read.at - lease_s, later.began_at, "suspended") or disturbed_by(
            earlier.process, earlier.began_at - lease_s, earlier.began_at, "suspended"
        )

    def _knew(self, key: TriggerKey, earlier: Flight, read: Attempt) -> bool:
        """Did the process that reads it again still have it in memory, sent or being removed?

        Whether the shard has changed hands does not matter: it is read again only when all calls for it are over. A
        send counts as over when its time is up; so the process knew only of one that was answered in time.
        """
        if not self._changed_hands(key.shard, earlier.began_at, read.at):
            return True
        frozen = self._evidence.disturbed_by(earlier.process, earlier.began_at, read.at, "paused", "suspended")
        return frozen is None and earlier.answered_within(self._timeout_s)

    def _why_not_removed(self, key: TriggerKey, earlier: Flight, later: Flight, read_at: float) -> str | None:
        """Why was the trigger still there, when another read it?"""
        why, until = "the lease was lost between send and removal", _answered_at(earlier) + self._removal_s
        if later.process != earlier.process and not self._changed_hands(key.shard, earlier.began_at, read_at):
            why = ""  # nobody took the shard meanwhile
        troubles: list[tuple[float, float, str]] = []
        for removal in self._evidence.removals.get(key, []):
            if removal.flight.process == earlier.process and self._in_trouble(removal, read_at):
                began_at = removal.flight.began_at
                troubles.append((began_at, began_at + self._retry_s + self._removal_s, "a removal failed"))
        for disturbance in self._evidence.disturbances.get(earlier.process, []):
            if disturbance.until >= earlier.began_at:
                over_at = math.inf if disturbance.what in (_CRASH, "did not stop in time") else disturbance.until
                troubles.append((disturbance.since, over_at + self._retry_s + self._removal_s, disturbance.what))
        for since, over_at, what in sorted(troubles):
            if since <= min(until, read_at) and over_at > until:
                until, why = over_at, what
        process = self._process(earlier.process)
        if process.died_at is not None and process.died_at <= until and not why:
            why = "its process ended"
        return why or None if read_at <= until else None

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
        if not self._acted_on(key, adds[-1].flight.process, adds[-1].flight.began_at):
            return None
        return self._why_came_again(key, until)

    # --- an inbound message came again --------------------------------------------------------------------------------

    def _why_sent_from_memory(self, key: TriggerKey, earlier: Flight, later: Flight) -> str | None:
        """Why did an ingester send a job that had been sent?"""
        received = self._acted_on(key, later.process, later.began_at)
        if self._had_sent(key, earlier, later) or all(self._could_look_up(key, r, later.began_at) for r in received):
            return None
        # Or it found the trigger when it stored it once more, into a bucket that is retired.
        return self._why_came_again(key, later.began_at) or self._why_stored_again(
            key, earlier, later.began_at, by=later.process
        )

    def _had_sent(self, key: TriggerKey, earlier: Flight, later: Flight) -> bool:
        """Remembering: had this very process sent it from the same message, and got SQS's response?"""
        if earlier.process != later.process or not (earlier.answered and self._was_an_ingester(earlier)):
            return False
        messages = [
            message
            for message in self._evidence.carriers.get(key, {})
            if any(r.flight.process == later.process for r in self._evidence.receipts.get(message, []))
        ]
        return len(messages) == 1

    def _acted_on(self, key: TriggerKey, process: str, until: float) -> list[Attempt]:
        """The receives of the job on which a process may have acted.

        Remembering: not those of a message that it had begun to delete before. Claiming: not those of a message whose
        create came after another's.
        """
        winner = self._evidence.claims.get(key.job_id)
        found = []
        for message in self._evidence.carriers.get(key, {}):
            prepared = self._evidence.prepared.get(message, [])
            creates = [arrival.create_id for arrival in prepared if arrival.key == key]
            if winner is not None and creates and winner not in creates:
                continue
            deletes = [d for d in self._evidence.deletes.get(message, []) if d.flight.process == process]
            finished_at = min((delete.flight.began_at for delete in deletes), default=math.inf)
            found += [
                receipt
                for receipt in self._evidence.receipts.get(message, [])
                if receipt.flight.process == process and receipt.at <= until and receipt.flight.began_at <= finished_at
            ]
        return found

    def _could_look_up(self, key: TriggerKey, received: Attempt, sent_at: float) -> bool:
        """Looking up: was the trigger in the store all the time from the receive, not the message's first, to the send?

        Not where its bucket was retired: then it is sent from here, for nobody else will read it.
        """
        again = any(
            receipt.at < received.at
            for message in self._evidence.carriers.get(key, {})
            if received in (receipts := self._evidence.receipts.get(message, []))
            for receipt in receipts
        )
        facts = self._evidence.facts.possible(key, received.at, sent_at)
        bucket = bucket_of(key.due_at_ms, self._world.scenario.bucket_width_s * 1000)
        retired = any(
            retirement.shard == key.shard and retirement.bucket > bucket and retirement.at <= sent_at
            for retirement in self._evidence.retirements
        )
        return again and not retired and all(fact.stored and fact.stopped is None for fact in facts)

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
        receipts = sorted(
            (receipt for receipt in self._evidence.receipts.get(message, []) if receipt.at <= until),
            key=lambda receipt: receipt.at,
        )
        for receipt, again in pairwise(receipts):
            why = self._why_visible(message, receipt, again)
            if why is not None:
                return why
        return None

    def _why_visible(self, message: str, receipt: Attempt, again: Attempt) -> str | None:
        """Why was a message, once received, visible when it was received again?"""
        quirks = [what for at, what in self._evidence.quirks.get(message, []) if receipt.at <= at <= again.at]
        if quirks:
            return quirks[0]
        why: str | None
        if not receipt.flight.answered:
            why = "the response to a receive was lost"
        elif self._slow(receipt.flight):
            why = "the response to a receive was slow"
        else:
            why = self._why_not_kept(message, receipt, again)
        return why and f"inbound received twice: {why}"

    def _why_not_kept(self, message: str, receipt: Attempt, again: Attempt) -> str | None:
        """Why did the process that had received a message not keep it invisible, or delete it?"""
        extensions = [
            extension
            for extension in self._evidence.extensions.get(message, [])
            if extension.flight.process == receipt.flight.process
            and receipt.at <= extension.flight.began_at <= again.at
        ]
        # What happened before it was last made invisible explains nothing.
        kept = [extension.flight.began_at for extension in extensions if extension.done and extension.at <= again.at]
        hidden_at = max([receipt.flight.began_at, *kept])
        disturbance = self._evidence.disturbed_by(receipt.flight.process, hidden_at, again.at)
        if disturbance is not None:
            return disturbance
        calls = self._evidence.troubled_calls.get(receipt.flight.process, [])
        if any(c.fate is Fate.UNEXPECTED and receipt.at <= c.began_at <= again.at for c in calls):
            return "it was left after an unexpected error"
        if any(self._in_trouble(a, again.at) for a in extensions if a.flight.began_at >= hidden_at):
            return "an extension failed"
        # A message is kept while its delete is repeated, and then left to come again.
        deletes = [a for a in self._evidence.deletes.get(message, []) if a.flight.began_at >= receipt.at]
        return "a delete failed" if any(self._in_trouble(delete, again.at) for delete in deletes) else None

    # ------------------------------------------------------------------------------------------------------------------

    def _may_be(self, flight: Flight, role: str) -> bool:
        """May the call be that role's? All roles of a process share one connection to the dead-letter queue."""
        return role in self._process(flight.process).roles if flight.role == DEAD_LETTERS else flight.role == role

    def _was_an_ingester(self, flight: Flight) -> bool:
        """Was the call certainly an ingester's? A dead letter may be a dispatcher's of the same process."""
        return self._may_be(flight, "ingester") and not self._may_be(flight, "dispatcher")

    def _process(self, name: str) -> Process:
        return next(process for process in self._world.processes if process.name == name)

    @property
    def _timeout_s(self) -> float:
        return self._world.settings.call_timeout_s

    @property
    def _removal_s(self) -> float:
        """Within this time a removal without trouble is done: a call that is under way, and the next."""
        return 2 * self._timeout_s + 1.0

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
        writer = self._process(add.flight.process)
        return add.flight.fate is Fate.STRAGGLER or not add.flight.answered or writer.died_at is not None


def _answered_at(flight: Flight) -> float:
    return flight.began_at + flight.there_s + flight.back_s
