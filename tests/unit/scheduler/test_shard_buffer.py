from __future__ import annotations

from dynein.core.keys import JOB_ID_BYTES, TriggerKey
from dynein.core.trigger import SLOT_BYTES, Trigger
from dynein.scheduler.memory_budget import MemoryBudget
from dynein.scheduler.shard_buffer import ShardBuffer
from dynein.testing import ManualClock


class _Mine:
    def valid(self) -> bool:
        return True


def test_a_large_trigger_that_is_let_go_at_once_gives_back_what_it_took() -> None:
    memory = MemoryBudget(20, 3)
    buffer = ShardBuffer(_Mine(), memory, ManualClock(), 1_000)
    set_aside = memory.reserve_page(0)
    large = buffer.add(Trigger(TriggerKey(5, bytes(JOB_ID_BYTES), 0), "token", bytes(2 * SLOT_BYTES)), None)
    assert memory.slots == set_aside + 2
    buffer.evict(large)
    memory.give_back(set_aside - 1)
    assert memory.slots == 0
