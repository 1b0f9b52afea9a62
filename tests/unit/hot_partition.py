"""A trigger store of which some shards take no writes."""

from __future__ import annotations

from collections.abc import Sequence

from dynein.core.keys import TriggerKey
from dynein.core.trigger import Trigger
from dynein.errors import Throttled
from dynein.testing import FakeTriggerTable


class HotTable(FakeTriggerTable):
    """As DynamoDB does, it leaves the items of a hot partition undone, and refuses a batch that has no others."""

    hot: frozenset[int] = frozenset()
    refusals: int = 0
    """Writes that a hot shard has left undone."""

    async def add(self, triggers: Sequence[Trigger]) -> list[Trigger]:
        left = [trigger for trigger in triggers if trigger.key.shard in self.hot]
        taken = [trigger for trigger in triggers if trigger.key.shard not in self.hot]
        self.refusals += len(left)
        if left and not taken:
            raise Throttled("hot")
        return left + await super().add(taken)

    async def remove(self, keys: Sequence[TriggerKey]) -> list[TriggerKey]:
        left = [key for key in keys if key.shard in self.hot]
        taken = [key for key in keys if key.shard not in self.hot]
        self.refusals += len(left)
        if left and not taken:
            raise Throttled("hot")
        return left + await super().remove(taken)
