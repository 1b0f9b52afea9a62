"""When following a queue ends, and what it leaves alone; what it shows is in ``tests/acceptance/test_cli.py``."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from dynein.admin.tail import Arrived, tail
from dynein.core.inbound_message import Entry, pack
from dynein.core.job import Attribute
from dynein.core.queues import OutgoingMessage
from dynein.core.seal import Seal
from dynein.delivery.dead_letter_queue import KIND_ATTRIBUTE, KIND_INBOUND, KIND_JOB
from dynein.errors import FatalError
from dynein.testing import FakeQueues, ManualClock

WAIT_S = 5
ENTRY = Entry("token", "", msgspec.Raw(b'{"queue":"a"}'))


async def test_told_to_stop_it_ends_with_the_receive_that_is_under_way() -> None:
    clock, stopping = ManualClock(), asyncio.Event()
    queues = FakeQueues(clock)
    url = queues.create("a")

    async def follow() -> list[Arrived]:
        return [one async for one in tail(queues, url, "a", clock, keep=False, stopping=stopping, wait_s=WAIT_S)]

    following = asyncio.ensure_future(follow())
    await queues.send(url, [OutgoingMessage("shown", {})])
    await clock.advance(20.5)
    assert not following.done()
    stopped_at = clock.monotonic()
    stopping.set()
    await clock.run_until(following.done)
    assert clock.monotonic() - stopped_at <= WAIT_S
    assert [arrived.body for arrived in await following] == ["shown"]


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize(
    "own",
    [
        OutgoingMessage(pack([ENTRY], Seal([b"another deployment's secret"])), {}),
        OutgoingMessage('{"queue":"a"}', {KIND_ATTRIBUTE: Attribute("String", KIND_JOB)}),
        OutgoingMessage("unreadable", {KIND_ATTRIBUTE: Attribute("String", KIND_INBOUND)}),
    ],
    ids=["inbound", "dead letter", "unreadable"],
)
async def test_own_messages_of_any_deployment_are_given_back(own: OutgoingMessage, keep: bool) -> None:  # noqa: FBT001
    """The settings name one deployment's queues; the credentials may reach another's."""
    clock = ManualClock()
    queues = FakeQueues(clock)
    url = queues.create("not-named-in-the-settings")
    await queues.send(url, [own, OutgoingMessage("beside it", {})])

    async def follow() -> list[Arrived]:
        stopping = asyncio.Event()
        return [one async for one in tail(queues, url, "q", clock, keep=keep, stopping=stopping, wait_s=WAIT_S)]

    with pytest.raises(FatalError, match="Dynein's own messages"):
        await follow()
    again = await queues.receive(url, entries_max=10, wait_s=0, visibility_timeout_s=30)
    assert sorted(message.body for message in again) == sorted([own.body, "beside it"])
