"""What every `Queues` must do. Where an engine differs from AWS, the test that meets it says so."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NamedTuple, Protocol, TypeVar

import pytest
import pytest_asyncio

from dynein.aws.sqs import SqsQueues
from dynein.core.job import Attribute
from dynein.core.queues import (
    DELAY_MAX_S,
    ENTRIES_MAX,
    MESSAGE_BYTES_MAX,
    Depth,
    Destination,
    OutgoingMessage,
    Queues,
    Received,
)
from dynein.errors import Remedy, UnknownQueue
from dynein.observability.telemetry import Telemetry
from dynein.runtime.clock import Clock, SystemClock
from dynein.testing import FakeQueues, ManualClock
from tests.contract.conftest import Opened
from tests.contract.subjects import QUEUES, Subject, over

pytestmark = [
    *over(QUEUES),
    # aiohttp warns of any request of more than 1 MiB; only the tests of what is too large make some.
    pytest.mark.filterwarnings("ignore:Sending a large body directly:ResourceWarning"),
]

ResultT = TypeVar("ResultT")

FORGETFUL = {"elasticmq"}
"""They deviate: ``MaximumMessageSize`` and ``MessageRetentionPeriod`` are taken, and unknown when asked for."""
TAKE_ANY_SIZE = {"elasticmq"}
"""They deviate: ``MaximumMessageSize`` of a queue is not looked at."""
SKEW_MS = 60_000
"""More than the clocks of a machine and an engine differ by, on AWS too."""
LONG_S = 60
"""A visibility timeout that does not end during a test."""
WAIT_S = 3
LARGEST_BYTES = 1024 * 1024
"""No engine takes more in one call: 1 MiB on AWS and moto, 256 KiB on roto."""


class Create(Protocol):
    """Makes a queue. Its attributes are the engine's default ones unless they are given."""

    async def __call__(
        self, suffix: str, *, delay_s: int | None = None, message_bytes_max: int | None = None
    ) -> Destination:
        """Where it is; no attributes of it."""


class World(NamedTuple):
    """One engine. Queues are named anew for each test."""

    engine: str
    queues: Queues
    clock: Clock
    create: Create
    wait: Callable[[Awaitable[Any]], Awaitable[Any]]
    """Await something that takes time by `clock`."""

    async def receive(
        self, queue: Destination, *, entries_max: int = 10, wait_s: int = WAIT_S, visibility_timeout_s: int = LONG_S
    ) -> list[Received]:
        received: list[Received] = await self.wait(
            self.queues.receive(
                queue.url, entries_max=entries_max, wait_s=wait_s, visibility_timeout_s=visibility_timeout_s
            )
        )
        return received

    async def receive_all(self, queue: Destination, count: int) -> list[Received]:
        """``count`` messages, in as many receives as that takes; an empty one fails the test."""
        received: list[Received] = []
        while len(received) < count:
            more = await self.receive(queue)
            assert more, f"{len(received)} of {count} messages came"
            received += more
        return received

    async def rest(self, queue: Destination) -> list[Received]:
        """What else is visible now. AWS serves a short poll from some of its servers, an engine from all it has."""
        return await self.receive(queue, wait_s=1 if self.engine == "real" else 0)

    async def in_order(self, fifo: Destination, count: int) -> list[str]:
        """The bodies of ``count`` messages, each deleted before the next are asked for.

        How many of one group come in one receive is the engine's affair: fauxqs returns one, the others with all.
        """
        came: list[str] = []
        while len(came) < count:
            more = await self.receive(fifo)
            assert more, f"{len(came)} of {count} messages came"
            came += bodies(more)
            assert await self.queues.delete(fifo.url, [message.receipt for message in more]) == [None] * len(more)
        return came

    async def send(self, queue: Destination, *messages: OutgoingMessage) -> None:
        assert await self.queues.send(queue.url, messages) == [None] * len(messages)


def text(body: str, **options: Any) -> OutgoingMessage:
    return OutgoingMessage(body, **({"attributes": {}} | options))


def bodies(received: list[Received]) -> list[str]:
    return [message.body for message in received]


@pytest_asyncio.fixture(loop_scope="session")
async def world(subject: Subject, aws_clients: Opened | None) -> AsyncIterator[World]:
    if aws_clients is None:
        manual = ManualClock()
        fake = FakeQueues(manual)

        async def create_fake(
            suffix: str, *, delay_s: int | None = None, message_bytes_max: int | None = None
        ) -> Destination:
            url = fake.create(_name(suffix), delay_s=delay_s or 0, message_bytes_max=message_bytes_max)
            return Destination(url, suffix.endswith(".fifo"))

        yield World("fake", fake, manual, create_fake, manual.result_of)
        return

    client = aws_clients.sqs
    async with contextlib.AsyncExitStack() as cleanup:

        async def create(
            suffix: str, *, delay_s: int | None = None, message_bytes_max: int | None = None
        ) -> Destination:
            fifo = suffix.endswith(".fifo")
            attributes: Any = {"FifoQueue": "true"} if fifo else {}
            given = {"DelaySeconds": delay_s, "MaximumMessageSize": message_bytes_max}
            attributes |= {name: str(value) for name, value in given.items() if value is not None}
            url = (await client.create_queue(QueueName=_name(suffix), Attributes=attributes))["QueueUrl"]
            cleanup.push_async_callback(client.delete_queue, QueueUrl=url)
            return Destination(url, fifo)

        yield World(subject.engine, SqsQueues(client, Telemetry()), SystemClock(), create, _await)


def _name(suffix: str) -> str:
    return f"dynein-contract-{uuid.uuid4().hex}-{suffix}"


async def _await(awaitable: Awaitable[ResultT]) -> ResultT:
    return await awaitable


@pytest_asyncio.fixture(loop_scope="session")
async def queue(world: World) -> Destination:
    return await world.create("a")


@pytest_asyncio.fixture(loop_scope="session")
async def fifo(world: World) -> Destination:
    return await world.create("a.fifo")


# --- resolve --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["a", "a.fifo"])
async def test_resolve_by_name_and_by_url(world: World, suffix: str) -> None:
    created = await world.create(suffix)
    name = created.url.rsplit("/", 1)[-1]
    found = await world.queues.resolve(name)
    assert found[:2] == created[:2]
    assert await world.queues.resolve(created.url) == found


@pytest.mark.parametrize("suffix", ["a", "a.fifo"])
async def test_resolve_tells_the_attributes_that_matter_to_what_is_sent(world: World, suffix: str) -> None:
    plain = await world.queues.resolve((await world.create(suffix)).url)
    assert plain.delay_s == 0
    special = await world.queues.resolve((await world.create(suffix, delay_s=7, message_bytes_max=2048)).url)
    assert special.delay_s == 7
    assert special.imposed_delay_s == (7 if special.fifo else 0)
    if world.engine in FORGETFUL:
        assert (special.message_bytes_max, special.retention_s) == (None, None)
    else:
        assert special.message_bytes_max == 2048
        assert plain.message_bytes_max in {262_144, MESSAGE_BYTES_MAX}
        assert special.retention_s == plain.retention_s == 4 * 86_400


async def test_an_unknown_queue_by_name_or_url(world: World, queue: Destination) -> None:
    for unknown in (_name("missing"), queue.url + "-missing"):
        with pytest.raises(UnknownQueue):
            await world.queues.resolve(unknown)


@pytest.mark.parametrize(
    "nonsense",
    [
        "",
        " ",
        "a b",
        "ä",
        "x" * 81,
        ".fifo",
        "a.fifo.fifo",
        "a.b",
        "a\n",
        "https://",
        "https://[",
        "ftp://127.0.0.1/000000000000/a",
        "arn:aws:sqs:us-east-1:000000000000:a",
    ],
)
async def test_what_names_no_queue_is_an_unknown_queue(world: World, nonsense: str) -> None:
    with pytest.raises(UnknownQueue):
        await world.queues.resolve(nonsense)


@pytest.mark.parametrize("prefix", ["https://evil.example/", "https://sqs.us-east-1.amazonaws.com.evil.example/"])
async def test_a_url_of_another_host_is_not_taken_for_the_queue_of_that_name_here(
    world: World, queue: Destination, prefix: str
) -> None:
    # The engines, as SQS does, read only the path of a queue URL.
    with pytest.raises(UnknownQueue):
        await world.queues.resolve(prefix + "/".join(queue.url.split("/")[3:]))


# --- send and receive -----------------------------------------------------------------------------------------------


async def test_a_body_arrives_as_it_was_sent(world: World, queue: Destination) -> None:
    sent = "a\tb\r\nc <&>\"'\\ é ß 日本語 \u00a0\ufffd  " + '{"json": [1, 2]}'
    await world.send(queue, text(sent))
    (message,) = await world.receive(queue)
    assert message.body == sent
    assert message.receive_count == 1
    assert message.attributes == {}
    assert message.sent_at_ms is not None
    assert abs(message.sent_at_ms - world.clock.now_ms()) < SKEW_MS


async def test_a_body_with_a_character_past_the_first_plane(world: World, queue: Destination) -> None:
    """SQS takes ``#x10000 to #x10FFFF`` (SendMessage)."""
    results = await world.queues.send(queue.url, [text("\U0001f409"), text("plain")])
    if world.engine == "fauxqs":
        # fauxqs deviates: it takes none past #xFFFD.
        refused, sent = results
        assert refused is not None
        assert refused.remedy is Remedy.REJECT
        assert sent is None
    else:
        assert results == [None, None]
        assert sorted(bodies(await world.receive_all(queue, 2))) == ["plain", "\U0001f409"]


async def test_attributes_of_every_type_arrive_as_they_were_sent(world: World, queue: Destination) -> None:
    attributes = {
        "string": Attribute("String", "é \U0001f409"),
        "custom.string": Attribute("String.uuid", "12"),
        "number": Attribute("Number", "-1.50"),
        "custom-number": Attribute("Number.int", "007"),
        "binary": Attribute("Binary", base64.b64encode(bytes(range(256))).decode()),
        "custom_binary": Attribute("Binary.png", base64.b64encode(b"\0").decode()),
    }
    await world.send(queue, text("x", attributes=attributes))
    (message,) = await world.receive(queue)
    assert message.attributes == attributes


async def test_ten_attributes(world: World, queue: Destination) -> None:
    attributes = {f"a{i}": Attribute("String", str(i)) for i in range(10)}
    await world.send(queue, text("x", attributes=attributes))
    (message,) = await world.receive(queue)
    assert message.attributes == attributes


async def test_full_batches_arrive_whole(world: World, queue: Destination) -> None:
    sent = [f"{i}" for i in range(3 * ENTRIES_MAX)]
    for start in range(0, len(sent), ENTRIES_MAX):
        await world.send(queue, *[text(body) for body in sent[start : start + ENTRIES_MAX]])
    received = await world.receive_all(queue, len(sent))
    assert sorted(bodies(received)) == sorted(sent)
    assert len({message.message_id for message in received}) == len({message.receipt for message in received}) == 30


async def test_receive_takes_at_most_what_was_asked_for(world: World, queue: Destination) -> None:
    await world.send(queue, *[text(str(i)) for i in range(5)])
    assert len(await world.receive(queue, entries_max=2)) in {1, 2}


async def test_an_empty_queue_responds_at_once_if_asked_not_to_wait(world: World, queue: Destination) -> None:
    before = world.clock.monotonic()
    assert await world.receive(queue, wait_s=0) == []
    assert world.clock.monotonic() - before < 2


async def test_a_waiting_receive_gets_what_is_sent_meanwhile(world: World, queue: Destination) -> None:
    before = world.clock.monotonic()
    receiving = asyncio.ensure_future(
        world.queues.receive(queue.url, entries_max=1, wait_s=10, visibility_timeout_s=LONG_S)
    )
    await asyncio.wait([receiving], timeout=0.05)  # most likely it waits by now; the test holds if it does not
    await world.send(queue, text("x"))
    assert bodies(await world.wait(receiving)) == ["x"]
    assert world.clock.monotonic() - before < 5


async def test_two_receivers_do_not_get_the_same_message(world: World, queue: Destination) -> None:
    await world.send(queue, *[text(str(i)) for i in range(10)])
    hands = [await world.receive(queue, entries_max=5), await world.receive(queue, entries_max=5, wait_s=0)]
    received = bodies(hands[0] + hands[1])
    assert len(received) == len(set(received))


@pytest.mark.parametrize("verb", ["send", "receive", "delete", "extend", "depth"])
async def test_every_verb_knows_an_unknown_queue(world: World, queue: Destination, verb: str) -> None:
    await world.send(queue, text("x"))
    (message,) = await world.receive(queue)
    url = queue.url + "-missing"
    calls: dict[str, Callable[[], Awaitable[object]]] = {
        "send": lambda: world.queues.send(url, [text("x"), text("y")]),
        "receive": lambda: world.queues.receive(url, entries_max=1, wait_s=0, visibility_timeout_s=1),
        "delete": lambda: world.queues.delete(url, [message.receipt]),
        "extend": lambda: world.queues.extend(url, [message.receipt], 1),
        "depth": lambda: world.queues.depth(url),
    }
    with pytest.raises(UnknownQueue):
        await calls[verb]()


# --- per-entry failures ---------------------------------------------------------------------------------------------


BAD = {
    "delay": text("bad", delay_s=DELAY_MAX_S + 1),
    # AWS names the entry; roto, moto and ElasticMQ refuse the whole call.
    "attribute-type": text("bad", attributes={"n": Attribute("Nonsense", "x")}),
    "binary": text("bad", attributes={"b": Attribute("Binary", "not base64!")}),
    "size": text("x" * (LARGEST_BYTES + 1)),
}
TAKEN_ALL_THE_SAME = {(engine, what) for engine in ("fauxqs", "ministack") for what in ("delay", "attribute-type")}
"""fauxqs and ministack deviate: they check neither."""


@pytest.mark.parametrize("what", BAD)
@pytest.mark.parametrize("place", [0, 1, 3])
async def test_a_refused_entry_fails_for_good_and_alone(
    world: World, queue: Destination, what: str, place: int
) -> None:
    messages = [text(f"good {i}") for i in range(3)]
    messages.insert(place, BAD[what])
    results = await world.queues.send(queue.url, messages)
    if (world.engine, what) in TAKEN_ALL_THE_SAME:
        assert results == [None] * 4
        return
    assert [result is None for result in results] == [i != place for i in range(4)]
    failure = results[place]
    assert failure is not None
    assert failure.remedy is Remedy.REJECT
    assert failure.code
    assert sorted(bodies(await world.receive_all(queue, 3))) == ["good 0", "good 1", "good 2"]
    assert await world.rest(queue) == [], "none was sent twice"


async def test_a_single_refused_entry_is_a_result_not_an_error(world: World, queue: Destination) -> None:
    (failure,) = await world.queues.send(queue.url, [text("x" * (LARGEST_BYTES + 1))])
    assert failure is not None
    assert failure.remedy is Remedy.REJECT


async def test_a_batch_that_is_only_together_too_large_is_sent(world: World, queue: Destination) -> None:
    sent = [str(i) * 120_000 for i in range(10)]
    assert sum(map(len, sent)) > LARGEST_BYTES
    await world.send(queue, *[text(body) for body in sent])
    assert sorted(bodies(await world.receive_all(queue, 10))) == sent


async def test_a_message_group_on_a_standard_queue(world: World, queue: Destination) -> None:
    """AWS takes it since July 2025 ("fair queues")."""
    results = await world.queues.send(queue.url, [text("x", message_group_id="tenant"), text("y")])
    if world.engine == "roto":
        # roto refuses it, and the whole call for it.
        refused, sent = results
        assert refused is not None
        assert refused.remedy is Remedy.REJECT
        assert sent is None
    else:
        assert results == [None, None]


# --- delay ----------------------------------------------------------------------------------------------------------


async def test_a_delayed_message_is_not_seen_early_and_not_forgotten(world: World, queue: Destination) -> None:
    before_ms = world.clock.now_ms()
    await world.send(queue, text("later", delay_s=2), text("now"))
    assert bodies(await world.receive(queue)) == ["now"]
    assert (await world.queues.depth(queue.url)).delayed == 1
    assert bodies(await world.receive(queue, wait_s=5)) == ["later"]
    assert world.clock.now_ms() - before_ms >= 2000


async def test_the_delay_of_a_message_counts_not_that_of_its_queue(world: World) -> None:
    slow = await world.create("a", delay_s=900)
    await world.send(slow, text("now"), text("soon", delay_s=1))
    assert bodies(await world.receive(slow)) == ["now"]
    assert bodies(await world.receive(slow, wait_s=5)) == ["soon"]


async def test_a_fifo_queue_delays_every_message_by_its_own_delay(world: World) -> None:
    slow = await world.create("a.fifo", delay_s=2)
    before_ms = world.clock.now_ms()
    await world.send(slow, text("x", message_group_id="g", deduplication_id="1"))
    assert await world.receive(slow, wait_s=0) == []
    assert bodies(await world.receive(slow, wait_s=5)) == ["x"]
    assert world.clock.now_ms() - before_ms >= 2000


async def test_a_message_that_is_too_large_for_its_queue_is_refused_alone(world: World) -> None:
    small = await world.create("a", message_bytes_max=1024)
    failure, none = await world.queues.send(small.url, [text("x" * 1025), text("x" * 1024)])
    if world.engine in TAKE_ANY_SIZE:
        assert (failure, none) == (None, None)
        return
    assert none is None
    assert failure is not None
    assert failure.remedy is Remedy.REJECT


# --- visibility, delete ---------------------------------------------------------------------------------------------


async def test_a_received_message_comes_again_when_its_timeout_ends(world: World, queue: Destination) -> None:
    await world.send(queue, text("x"))
    before = world.clock.monotonic()
    (first,) = await world.receive(queue, visibility_timeout_s=1)
    assert await world.receive(queue, wait_s=0) == []
    (second,) = await world.receive(queue, wait_s=5)
    assert world.clock.monotonic() - before >= 0.9
    assert (second.message_id, second.body, second.receive_count) == (first.message_id, "x", 2)


async def test_extended_messages_stay_invisible(world: World, queue: Destination) -> None:
    await world.send(queue, text("x"), text("y"))
    received = await world.receive_all(queue, 2)
    receipts = [message.receipt for message in received]
    assert await world.queues.extend(queue.url, receipts, 1) == [None, None]
    assert await world.queues.extend(queue.url, receipts[:1], LONG_S) == [None]
    (back,) = await world.receive(queue, wait_s=5)
    assert back.message_id == received[1].message_id, "only the one whose time was cut came back"
    assert await world.rest(queue) == []


async def test_extending_by_nothing_gives_back_at_once(world: World, queue: Destination) -> None:
    await world.send(queue, text("x"))
    (first,) = await world.receive(queue)
    assert await world.queues.extend(queue.url, [first.receipt], 0) == [None]
    (second,) = await world.receive(queue)
    assert second.message_id == first.message_id
    assert second.receive_count == 2


async def test_a_deleted_message_does_not_come_again(world: World, queue: Destination) -> None:
    await world.send(queue, *[text(str(i)) for i in range(10)])
    received = await world.receive_all(queue, 10)
    receipts = [message.receipt for message in received]
    assert await world.queues.extend(queue.url, receipts, 1) == [None] * 10
    assert await world.queues.delete(queue.url, receipts) == [None] * 10
    assert await world.receive(queue, wait_s=2) == []
    assert await world.queues.depth(queue.url) == Depth(0, 0, 0)


async def test_deleting_twice_is_deleting_once(world: World, queue: Destination) -> None:
    await world.send(queue, text("x"))
    (message,) = await world.receive(queue)
    assert await world.queues.delete(queue.url, [message.receipt]) == [None]
    (again,) = await world.queues.delete(queue.url, [message.receipt])
    if world.engine in {"elasticmq", "ministack"}:
        # They deviate: a receipt is invalid once its message is gone. AWS acknowledges any receipt it has handed out.
        assert again is not None
        assert again.remedy is Remedy.REJECT, "or the ingester would try again and again"
    else:
        assert again is None


async def test_the_newest_receipt_deletes(world: World, queue: Destination) -> None:
    """AWS takes an older one too, but the message may stay; ElasticMQ and ministack refuse it."""
    await world.send(queue, text("x"))
    await world.receive(queue, visibility_timeout_s=1)
    (second,) = await world.receive(queue, wait_s=5)
    assert await world.queues.delete(queue.url, [second.receipt]) == [None]
    assert await world.queues.depth(queue.url) == Depth(0, 0, 0)


@pytest.mark.parametrize("verb", ["delete", "extend"])
async def test_a_bad_receipt_fails_alone(world: World, queue: Destination, verb: str) -> None:
    await world.send(queue, text("x"), text("y"))
    received = await world.receive_all(queue, 2)
    receipts = [received[0].receipt, "no receipt", received[1].receipt]
    if verb == "delete":
        results = await world.queues.delete(queue.url, receipts)
    else:
        results = await world.queues.extend(queue.url, receipts, LONG_S)
    assert results[0] is results[2] is None
    if (world.engine, verb) == ("fauxqs", "delete"):
        # fauxqs deviates: it acknowledges the deletion of what never was.
        assert results[1] is None
    else:
        assert results[1] is not None
        assert results[1].remedy is Remedy.REJECT


# --- depth ----------------------------------------------------------------------------------------------------------


async def test_depth_counts_each_place(world: World, queue: Destination) -> None:
    assert await world.queues.depth(queue.url) == Depth(0, 0, 0)
    await world.send(queue, *[text(str(i)) for i in range(3)])
    received = await world.receive(queue, entries_max=1)
    await world.send(queue, text("later", delay_s=900))
    assert len(received) == 1
    assert await world.queues.depth(queue.url) == Depth(2, 1, 1)


# --- FIFO -----------------------------------------------------------------------------------------------------------


def in_group(body: str, *, group: str = "g", deduplication_id: str | None = None) -> OutgoingMessage:
    return text(body, message_group_id=group, deduplication_id=deduplication_id or uuid.uuid4().hex)


async def test_fifo_keeps_order_within_and_over_batches(world: World, fifo: Destination) -> None:
    sent = [f"{i:02}" for i in range(25)]
    for start in range(0, len(sent), ENTRIES_MAX):
        await world.send(fifo, *[in_group(body) for body in sent[start : start + ENTRIES_MAX]])
    assert await world.in_order(fifo, len(sent)) == sent


async def test_fifo_drops_what_has_a_deduplication_id_it_knows_and_acknowledges_it(
    world: World, fifo: Destination
) -> None:
    await world.send(fifo, in_group("first", deduplication_id="one"), in_group("second", deduplication_id="two"))
    await world.send(fifo, in_group("again", deduplication_id="one"))
    assert await world.in_order(fifo, 2) == ["first", "second"]
    assert await world.receive(fifo, wait_s=0) == []


async def test_fifo_remembers_a_deduplication_id_after_its_message_is_deleted(world: World, fifo: Destination) -> None:
    await world.send(fifo, in_group("first", deduplication_id="one"))
    (message,) = await world.receive(fifo)
    await world.queues.delete(fifo.url, [message.receipt])
    await world.send(fifo, in_group("again", deduplication_id="one"))
    # roto and moto forget an id together with its message; AWS remembers it for five minutes.
    forgotten = ["again"] if world.engine in {"roto", "moto"} else []
    assert bodies(await world.receive(fifo, wait_s=0)) == forgotten


async def test_a_fifo_group_with_a_message_in_hand_waits_and_others_do_not(world: World, fifo: Destination) -> None:
    await world.send(fifo, in_group("g1"), in_group("g2"), in_group("h1", group="h"))
    (first,) = await world.receive(fifo, entries_max=1)
    assert first.body == "g1"
    assert bodies(await world.receive(fifo)) == ["h1"]
    assert await world.queues.delete(fifo.url, [first.receipt]) == [None]
    assert bodies(await world.receive(fifo)) == ["g2"]


async def test_a_fifo_message_without_a_group_fails_for_good_and_alone(world: World, fifo: Destination) -> None:
    # AWS names the entry; roto and moto refuse the whole call.
    results = await world.queues.send(fifo.url, [in_group("1"), text("bad", deduplication_id="x"), in_group("2")])
    assert results[0] is results[2] is None
    assert results[1] is not None
    assert results[1].remedy is Remedy.REJECT
    assert await world.in_order(fifo, 2) == ["1", "2"]


async def test_a_delay_on_one_fifo_message_fails_for_good(world: World, fifo: Destination) -> None:
    (failure,) = await world.queues.send(fifo.url, [in_group("x")._replace(delay_s=5)])
    assert failure is not None
    assert failure.remedy is Remedy.REJECT
