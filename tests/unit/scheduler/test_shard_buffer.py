from __future__ import annotations

from dynein.core.job import Job
from dynein.core.keys import JOB_ID_BYTES, TriggerKey
from dynein.core.trigger import SLOT_BYTES, Trigger
from dynein.scheduler.memory_budget import MemoryBudget
from dynein.scheduler.shard_buffer import ShardBuffer, Stage
from dynein.testing import ManualClock


class _Mine:
    def valid(self) -> bool:
        return True


def test_a_large_trigger_that_is_evicted_at_once_gives_back_what_it_took() -> None:
    memory = MemoryBudget(20, 3)
    buffer = ShardBuffer(_Mine(), memory, ManualClock(), 1_000)
    reserved = memory.reserve_page(0)
    large = buffer.add(Trigger(TriggerKey(5, bytes(JOB_ID_BYTES), 0), "token", bytes(2 * SLOT_BYTES)), None)
    assert memory.slots == reserved + 2
    buffer.evict(large)
    memory.give_back(reserved - 1)
    assert memory.slots == 0


def trigger(due_at_ms: int, job: int = 0) -> Trigger:
    return Trigger(TriggerKey(due_at_ms, job.to_bytes(JOB_ID_BYTES, "big"), 0), "token", b"")


def test_the_earliest_evicted_trigger_of_a_destination_counts_until_it_is_read_again() -> None:
    memory = MemoryBudget(20, 4)
    memory.reserve_page(0)
    buffer = ShardBuffer(_Mine(), memory, ManualClock(), 1_000)
    for due_at_ms, queue in ((7, "a"), (5, "a"), (6, "a"), (9, "b")):
        buffer.evict(buffer.add(trigger(due_at_ms), Job(queue=queue, body="")))
    assert buffer.evicted == {"a": 5, "b": 9}
    buffer.note_evicted("a", 6)
    buffer.note_evicted("b", 8)
    assert buffer.evicted == {"a": 5, "b": 8}
    buffer.take_back({"a"})
    assert buffer.evicted == {"b": 8}


def test_a_closed_buffer_has_nothing_to_read_again() -> None:
    memory = MemoryBudget(20, 4)
    memory.reserve_page(0)
    buffer = ShardBuffer(_Mine(), memory, ManualClock(), 1_000)
    evicted, left = (buffer.add(trigger(5, i), Job(queue="a", body="")) for i in range(2))
    left.stage = Stage.TRYING
    buffer.evict(evicted)
    buffer.close()
    buffer.evict(left)
    assert buffer.evicted == {}
    assert len(buffer) == 0
