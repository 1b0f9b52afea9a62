"""Ingesters that are killed and stopped, calls that fail and lie, cancels, a dispatcher: seeded, with an auditor."""

import random
from collections import Counter

import pytest

from dynein.core.inbound_message import Entry
from dynein.core.keys import bucket_of
from dynein.core.queues import SendFailure
from dynein.core.trigger_store import Cancelled
from dynein.errors import Throttled, Unavailable
from dynein.testing import Faults
from dynein.testing.faults import Call
from tests.unit.ingest.world import WIDTH_MS, Process, World, due_of, trigger_of


class Dice(Faults):
    """Fails calls before or after they take effect, and entries of batches."""

    def __init__(self, rng: random.Random, world: World, *, chance: float, truthful: tuple[str, ...]) -> None:
        super().__init__()
        self._truthful = truthful
        self._rng = rng
        self._clock = world.clock
        self.chance = chance

    async def before(self, call: Call) -> None:  # noqa: ARG002
        await self._clock.sleep(self._rng.choice([0.001, 0.005, 0.02, 0.3]))
        if self._rng.random() < self.chance:
            raise self._rng.choice([Throttled("slow down"), Unavailable("no response")])

    async def after(self, call: Call) -> None:
        if call.verb not in self._truthful and self._rng.random() < self.chance:
            raise Unavailable("no response")

    def failed_entries(self, call: Call) -> dict[int, SendFailure]:
        return {
            i: SendFailure("InternalError", "dice", permanent=False)
            for i in range(call.entries)
            if self._rng.random() < self.chance
        }


class Dispatcher:
    """Owns every shard of the world: raises read marks, sends and removes what is due, retires buckets."""

    def __init__(self, world: World, rng: random.Random) -> None:
        self._world = world
        self._rng = rng
        self.sent: list[tuple[str, int]] = []

    async def tick(self) -> None:
        world = self._world
        for record in world.table.shards():
            ahead_ms = self._rng.choice([1000, 3000, 3000, 20_000])
            read_mark_ms = max(record.read_mark_ms, world.now_ms() + ahead_ms)
            mine = await world.own(record.shard, read_mark_ms=read_mark_ms)
            for trigger in world.table.triggers():
                key = trigger.key
                bucket = bucket_of(key.due_at_ms, WIDTH_MS)
                if key.shard != record.shard or key.due_at_ms > world.now_ms() or bucket < mine.retired_before:
                    continue
                if (await world.table.find(key)).tombstone is None:
                    self.sent.append((trigger.token, world.now_ms()))
                await world.table.remove([key])
            # A grace of nothing at all: as soon as the bucket is over and found empty.
            over = bucket_of(world.now_ms() - 1, WIDTH_MS)
            busy = [bucket_of(t.key.due_at_ms, WIDTH_MS) for t in world.table.triggers() if t.key.shard == record.shard]
            await world.table.renew(
                mine, settled_mark_ms=mine.settled_mark_ms, read_mark_ms=read_mark_ms, retired_before=min([over, *busy])
            )


class Story:
    """What happens to a world, by the dice of a seed."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.clean = seed % 2 == 0
        self.world = World(hold_window_s=self.rng.choice([6.0, 20.0]), held_jobs_max=self.rng.choice([40, 20_000]))
        self.dispatcher = Dispatcher(self.world, self.rng)
        self.running: list[Process] = []
        self.entries: list[Entry] = []
        self.cancelled: set[str] = set()
        self.cut_short = 0
        """Times a message may have been given back or lost unfinished, or finished and not deleted."""

    def start(self) -> None:
        # Losing these responses makes duplicates: of a send, and of a write repeated after its trigger was sent.
        truthful = ("send", "add") if self.clean else ("send",)
        faults = Dice(self.rng, self.world, chance=self.rng.choice([0.0, 0.05, 0.3]), truthful=truthful)
        process = self.world.process(f"i{len(self.world.processes)}", faults=faults)
        process.start()
        self.running.append(process)

    async def step(self) -> None:
        rng, world = self.rng, self.world
        batch = [
            world.entry(
                rng.choice([-5.0, 0.5, 2.0, 8.0, 15.0, 22.0, 70.0]), shard=rng.randrange(2), prepared=rng.random() < 0.2
            )
            for _ in range(rng.randrange(12))
        ]
        if batch:
            await world.post(*batch)
            self.entries += batch
        await self.maybe_cancel()
        await world.clock.advance(rng.random() * 2)
        await self.dispatcher.tick()
        if rng.random() < 0.08:
            process = self.running.pop(rng.randrange(len(self.running)))
            if not self.clean:
                await process.kill()
            else:
                took_s = await process.stop()
                assert took_s <= process.settings.drain_s
                self.cut_short += took_s >= process.settings.drain_s - 2
            self.start()

    async def maybe_cancel(self) -> None:
        if self.entries and self.rng.random() < 0.5:
            entry = self.rng.choice(self.entries[-30:])
            if await self.world.table.cancel(trigger_of(entry).key) is Cancelled.CANCELLED:
                self.cancelled.add(entry.token)

    async def end(self) -> None:
        """Everything works again, for long enough."""
        for process in self.world.processes:
            assert isinstance(process.faults, Dice)
            self.cut_short += round(process.inbound_failures("delete") + process.inbound_failures("extend"))
            process.faults.chance = 0.0
        for _ in range(80):
            await self.world.clock.advance(5)
            await self.dispatcher.tick()
        await self.world.close()


@pytest.mark.parametrize("seed", range(12))
async def test_no_job_is_lost_early_or_sent_after_its_cancel(seed: int) -> None:
    story = Story(seed)
    world = story.world
    for _ in range(2):
        story.start()
    for _ in range(60):
        await story.step()
    await story.end()

    sent = [(d.token, d.at_ms) for d in world.delivered] + story.dispatcher.sent
    due = {entry.token: due_of(entry) for entry in story.entries}
    assert all(at_ms >= due[token] for token, at_ms in sent), "early"
    tokens = {token for token, _ in sent}
    assert story.cancelled, "a story without a cancel proves too little"
    assert story.cancelled.isdisjoint(tokens), "cancelled and sent"
    assert due.keys() - story.cancelled == tokens, "lost"
    assert world.inbound() == 0
    left = [trigger.token for trigger in world.table.triggers() if trigger.token not in story.cancelled]
    assert left == [], "stranded"
    if story.clean and not story.cut_short:  # nothing is there to explain a duplicate
        assert [token for token, times in Counter(token for token, _ in sent).items() if times > 1] == []
