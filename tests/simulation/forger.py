"""Another program, which may send to the inbound and the dead-letter queue, but does not know the secret.

It reads what is on both, so it has genuine messages to change, and genuine tokens. Nothing that it sends may ever reach
a destination: it is dead-lettered with a reason, or stays on the dead-letter queue when an operator redrives.
"""

from __future__ import annotations

import random

import msgspec

from dynein.core.delivered_message import DUE_AT_ATTRIBUTE, TOKEN_ATTRIBUTE
from dynein.core.inbound_message import Entry, pack
from dynein.core.job import Attribute, Job, encode_job
from dynein.core.job_token import JobRef, TokenKind, TokenSigner, parse
from dynein.core.keys import JOB_ID_BYTES, TriggerKey
from dynein.core.queues import OutgoingMessage
from dynein.core.seal import Seal
from dynein.delivery.dead_letter_queue import KIND_ATTRIBUTE, KIND_JOB, SIGNATURE_ATTRIBUTE
from tests.simulation.process import pause
from tests.simulation.world import World

FORGED = "forged job"
"""The body of each of its jobs begins with this."""
FORGED_MAX = 20
"""Messages in one run."""
_RATE_PER_S = 0.3
_GUESSED = b"a secret that is only guessed"


class Forger:
    """Sends a forged message every few seconds in the fault phase, if the scenario has it."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._rng = random.Random(f"forger {world.scenario.seed}")
        self._signer, self._seal = TokenSigner([_GUESSED]), Seal([_GUESSED])
        self._serial = 0
        self.inbound: list[str] = []
        """Bodies of inbound messages, sent to either queue."""
        self.dead_letters: list[tuple[str, str]] = []
        """Bodies and tokens of dead-lettered jobs."""

    async def run(self) -> None:
        """Until the end of the fault phase."""
        world = self._world
        while world.scenario.has("forged") and self._serial < FORGED_MAX:
            await pause(world.loop, self._rng.expovariate(_RATE_PER_S))
            if world.loop.time() >= world.scenario.fault_phase_s:
                return
            self._serial += 1
            world.met["forged"] += 1
            await self._rng.choice((self._forge_inbound, self._forge_inbound, self._forge_dead_letter))()

    async def _forge_inbound(self) -> None:
        settings = self._world.settings
        queue = self._rng.choice((settings.inbound_queue,) * 4 + (settings.dead_letter_queue,))
        body = self._inbound_message()
        if await self._send(queue, OutgoingMessage(body, {})):
            self.inbound.append(body)

    async def _forge_dead_letter(self) -> None:
        message = self._dead_letter()
        if await self._send(self._world.settings.dead_letter_queue, message):
            self.dead_letters.append((message.body, message.attributes[TOKEN_ATTRIBUTE].value))

    async def _send(self, queue: str, message: OutgoingMessage) -> bool:
        queues = self._world.queues
        self._world.trace.note("forger", f"sends a forged message to {queue}")
        (failure,) = await queues.send(queues.url(queue), [message])
        return failure is None

    # ------------------------------------------------------------------------------------------------------------------

    def _inbound_message(self) -> str:
        """Signed with another secret, or with the signature of a message that is there, or not at all."""
        line, _, records = pack([Entry(self._token(), "forged", self._record())], self._seal).partition("\n")
        forged = msgspec.json.decode(line)
        there = self._world.queues.everything(self._world.settings.inbound_queue)
        genuine = [mac for message in there if (mac := _signature(message.body)) is not None]
        forged["mac"] = self._rng.choice((forged["mac"], "", *genuine[-1:]))
        return f"{msgspec.json.encode(forged).decode()}\n{records}"

    def _dead_letter(self) -> OutgoingMessage:
        """The same of a job: one that is there keeps all but its body."""
        body = self._record().decode()
        there = self._world.queues.everything(self._world.settings.dead_letter_queue)
        genuine = [message for message in there if SIGNATURE_ATTRIBUTE in message.attributes]
        if genuine and self._rng.random() < 0.5:
            return OutgoingMessage(body, self._rng.choice(genuine).attributes)
        token = self._token()
        due_at_ms = str(parse(token).key.due_at_ms)
        signature = self._seal.sign("dead-lettered job", body.encode(), token.encode(), due_at_ms.encode())
        attributes = {
            KIND_ATTRIBUTE: Attribute("String", KIND_JOB),
            TOKEN_ATTRIBUTE: Attribute("String", token),
            DUE_AT_ATTRIBUTE: Attribute("Number", due_at_ms),
            SIGNATURE_ATTRIBUTE: Attribute("String", signature),
        }
        if self._rng.random() < 0.3:
            del attributes[SIGNATURE_ATTRIBUTE]
        return OutgoingMessage(body, attributes)

    def _token(self) -> str:
        """Of a job that is stored, or of one that there never was, due soon."""
        genuine = [trigger.token for trigger in self._world.table.triggers()]
        if genuine and self._rng.random() < 0.5:
            return self._rng.choice(genuine)
        shard = self._rng.randrange(len(self._world.table.shards()))
        due_at_ms = self._world.now_ms() + self._rng.randint(0, 20_000)
        return self._signer.sign(
            JobRef(TokenKind.SCHEDULED, TriggerKey(due_at_ms, self._rng.randbytes(JOB_ID_BYTES), shard))
        )

    def _record(self) -> bytes:
        destination = self._rng.choice(self._world.scenario.destinations)
        group = "forged" if destination.endswith(".fifo") else None
        return encode_job(Job(destination, f"{FORGED} {self._serial}", message_group_id=group))


def _signature(body: str) -> str | None:
    """Of an inbound message, if it is one."""
    try:
        signature: str = msgspec.json.decode(body.partition("\n")[0])["mac"]
    except (msgspec.DecodeError, TypeError, KeyError):
        return None
    return signature
