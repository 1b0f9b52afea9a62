"""How the fakes misbehave. `Faults` does so when a test asks; a simulation overrides its hooks and rolls dice."""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import Collection
from typing import Any, NamedTuple

from dynein.core.queues import SendFailure
from dynein.errors import Remedy

ANY = "*"


class Call(NamedTuple):
    """One call to a fake: which verb of which protocol, on what (queue name, shard, role), with how many entries."""

    service: str
    """``queues``, ``table`` or ``ledger``."""
    verb: str
    target: str
    entries: int


class Gate:
    """Holds a call at a chosen point until the test opens it."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.opened = asyncio.Event()

    def open(self) -> None:
        """Let the call go on."""
        self.opened.set()

    async def pass_through(self) -> None:
        """What the held call does."""
        self.reached.set()
        await self.opened.wait()


class Faults:
    """No faults, but for those asked for. One call uses up one fault, the first that fits its verb (``"*"``: any)."""

    def __init__(self) -> None:
        self._before: defaultdict[str, deque[Exception | Gate]] = defaultdict(deque)
        self._after: defaultdict[str, deque[Exception | Gate]] = defaultdict(deque)
        self._entries: defaultdict[str, deque[dict[int, SendFailure]]] = defaultdict(deque)
        self._down: dict[str, Exception] = {}
        self._down_targets: dict[str, Exception] = {}
        self._duplicates = 0
        self._survivors = 0
        self.calls: list[Call] = []
        """Every call made, in order: tests count AWS requests with it."""

    # --- what a test asks for -------------------------------------------------------------------------------------

    def fail_next(self, verb: str, error: Exception, *, times: int = 1) -> None:
        """The next call fails with ``error`` and does nothing."""
        self._before[verb].extend([error] * times)

    def lose_answer_next(self, verb: str, error: Exception, *, times: int = 1) -> None:
        """The next call takes effect, and fails with ``error`` all the same."""
        self._after[verb].extend([error] * times)

    def hold_before_next(self, verb: str) -> Gate:
        """The next call waits at the returned gate before it takes effect."""
        gate = Gate()
        self._before[verb].append(gate)
        return gate

    def hold_answer_next(self, verb: str) -> Gate:
        """The next call takes effect, and its response waits at the returned gate."""
        gate = Gate()
        self._after[verb].append(gate)
        return gate

    def fail_entries_next(
        self,
        verb: str,
        entries: Collection[int],
        *,
        code: str = "InternalError",
        permanent: bool = False,
        throttled: bool = False,
    ) -> None:
        """The next call succeeds but for ``entries`` (by index): refused by SQS, or left unprocessed by DynamoDB.

        ``permanent``: SQS will not take them however often they are sent. ``throttled``: they came too fast.
        """
        remedy = Remedy.REJECT if permanent else Remedy.RETRY
        failure = SendFailure(code, "as the test asked", remedy, throttled)
        self._entries[verb].append(dict.fromkeys(entries, failure))

    def go_down(self, error: Exception, *, verb: str = ANY) -> None:
        """Every such call fails with ``error``, until `come_up`."""
        self._down[verb] = error

    def take_down(self, target: str, error: Exception) -> None:
        """Every call on ``target`` (queue name, shard) fails with ``error``, until `come_up`."""
        self._down_targets[target] = error

    def come_up(self) -> None:
        """End `go_down` and `take_down`."""
        self._down.clear()
        self._down_targets.clear()

    def duplicate_next(self, messages: int = 1) -> None:
        """The next messages received stay visible all the same."""
        self._duplicates += messages

    def ignore_delete_next(self, messages: int = 1) -> None:
        """The next deletes are acknowledged, and the messages come again when their visibility timeout ends."""
        self._survivors += messages

    # --- what the fakes ask ---------------------------------------------------------------------------------------

    async def before(self, call: Call) -> None:
        """Called before ``call`` takes effect; raises or delays."""
        self.calls.append(call)
        error = self._down.get(call.verb) or self._down.get(ANY) or self._down_targets.get(call.target)
        if error is not None:
            raise error
        await _meet(_next(self._before, call.verb))

    async def after(self, call: Call) -> None:
        """Called after ``call`` took effect; raises or delays."""
        await _meet(_next(self._after, call.verb))

    def failed_entries(self, call: Call) -> dict[int, SendFailure]:
        """The entries of ``call`` to fail, by index. Asked after `before`, at the instant of the effect."""
        return _next(self._entries, call.verb) or {}

    def duplicates(self, call: Call, message_id: str) -> bool:  # noqa: ARG002 - for subclasses
        """Whether a message being received stays visible."""
        self._duplicates -= 1
        return self._duplicates >= 0 or self._reset("_duplicates")

    def ignores_delete(self, call: Call, message_id: str) -> bool:  # noqa: ARG002 - for subclasses
        """Whether a delete of a message is acknowledged and forgotten."""
        self._survivors -= 1
        return self._survivors >= 0 or self._reset("_survivors")

    def reorder(self, call: Call, candidates: list[Any]) -> None:
        """Shuffle in place what a standard queue is about to deliver; by default it stays in order."""

    def _reset(self, counter: str) -> bool:
        setattr(self, counter, 0)
        return False


def _next(planned: defaultdict[str, deque[Any]], verb: str) -> Any:  # noqa: ANN401 - one helper for three plans
    for name in (verb, ANY):
        if planned[name]:
            return planned[name].popleft()
    return None


async def _meet(fault: Exception | Gate | None) -> None:
    if isinstance(fault, Gate):
        await fault.pass_through()
    elif fault is not None:
        raise fault
