"""Which named fault explains that something happened twice. What no fault explains is a violation."""

from __future__ import annotations

from tests.simulation.engines import Receipt, Take
from tests.simulation.network import Fate, Flight
from tests.simulation.world import World

_TELLING = ("send", "remove", "renew", "take", "release", "delete", "extend", "receive", "add")
"""Calls whose lost answer can make something happen twice."""


class Explainer:
    """Knows what befell whom, and when."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._carried_by: dict[str, list[str]] = {}
        self._inbound_sends: dict[str, list[Flight]] = {}
        self._failures: dict[str, list[tuple[float, Flight]]] = {}
        self._quirks: dict[str, str] = {}
        world.network.on_failure.append(self._failed)
        world.faults.on_quirk.append(self._quirk)

    def inbound(self, message_id: str, tokens: list[str], flight: Flight) -> None:
        """A message entered the inbound queue."""
        for token in tokens:
            self._carried_by.setdefault(token, []).append(message_id)
            self._inbound_sends.setdefault(token, []).append(flight)

    def why(self, token: str, earlier: Flight, later: Flight, until: float) -> str | None:
        """Why ``token``, sent in ``earlier``, was sent again in ``later``; both had taken effect by ``until``."""
        if earlier.fate in (Fate.STRAGGLER, Fate.ANSWER_LOST, Fate.RESET) or not earlier.answered:
            return "the answer to a send was not heard"
        lease_s = self._world.settings.lease_ttl_s + self._world.settings.call_timeout_s
        befallen = self._befell(earlier.process, earlier.began_at - lease_s, until)
        if befallen is not None:
            return befallen
        for disturbance in self._world.observer.disturbances.get(later.process, []):
            # It did not notice that time had passed, so it trusted its lease for longer than it was worth.
            suspended = disturbance.what == "suspended"
            if suspended and disturbance.since <= later.began_at <= disturbance.until + lease_s:
                return "the second sender had been suspended"
        if any(not add.answered or add.fate is Fate.STRAGGLER for add in self._world.observer.adds.get(token, [])):
            return "the answer to a write was not heard"
        sends = self._inbound_sends.get(token, [])
        if len(sends) > 1 and any(not send.answered for send in sends):
            return "the answer to an inbound send was not heard"
        return self._received_twice(token, until)

    def resurrected(self, token: str) -> bool:
        """May the trigger of a job that was delivered stand in the table at the end?

        A write may come after its writer gave up, or its writer may have been killed before it could look whether the
        bucket was retired, while another ingester finished with the same inbound message. ``dynein audit`` finds it.
        """
        writers = {process.name: process for process in self._world.processes}
        return any(
            add.fate is Fate.STRAGGLER or not add.answered or writers[add.process].died_at is not None
            for add in self._world.observer.adds.get(token, [])
        )

    def unexplained_takes(self) -> list[str]:
        """Leases taken from owners whom nothing had befallen."""
        lease_s = self._world.settings.lease_ttl_s
        found = []
        for take in self._world.observer.takes:
            if take.previous is None or self._lease_may_end(take, lease_s):
                continue
            found.append(
                f"shard {take.shard}: {take.owner} took it at {take.at:.3f} from {take.previous}, who was well"
            )
        return found

    # ------------------------------------------------------------------------------------------------------------------

    def _quirk(self, what: str, message_id: str) -> None:
        self._quirks.setdefault(message_id, what)

    def _failed(self, flight: Flight, at: float) -> None:
        if flight.verb in _TELLING:
            self._failures.setdefault(flight.process, []).append((at, flight))

    def _befell(self, process: str, since: float, until: float) -> str | None:
        for disturbance in self._world.observer.disturbances.get(process, []):
            if disturbance.since <= until and disturbance.until >= since:
                return disturbance.what
        for at, flight in self._failures.get(process, []):
            if flight.began_at <= until and at >= since:
                return f"the answer to a {flight.verb} was not heard"
        return None

    def _received_twice(self, token: str, until: float) -> str | None:
        for message_id in self._carried_by.get(token, []):
            if message_id in self._quirks:
                return self._quirks[message_id]
            receipts = self._receipts(message_id, until)
            for receipt in receipts[:-1]:
                befallen = self._befell(receipt.process, receipt.at - 0.1, until)
                if befallen is not None:
                    return f"inbound received twice: {befallen}"
        return None

    def _receipts(self, message_id: str, until: float) -> list[Receipt]:
        return [r for r in self._world.observer.receives if r.message_id == message_id and r.at <= until]

    def _lease_may_end(self, take: Take, lease_s: float) -> bool:
        assert take.previous is not None
        owner = next(p for p in self._world.processes if p.name == take.previous)
        if owner.died_at is not None and owner.died_at <= take.at:
            return True
        since = take.at - 2 * lease_s - self._world.settings.call_timeout_s
        return self._befell(take.previous, since, take.at) is not None or any(
            since <= at <= take.at for at in self._world.network.bad_renewals.get(take.previous, [])
        )
