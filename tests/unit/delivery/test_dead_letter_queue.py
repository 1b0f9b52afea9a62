from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynein.core.job import Job, encode_job
from dynein.core.queues import ATTRIBUTES_MAX, OutgoingMessage, message_bytes
from dynein.core.seal import Seal
from dynein.delivery.dead_letter_queue import (
    KIND_ATTRIBUTE,
    KIND_INBOUND,
    KIND_JOB,
    OVERHEAD_BYTES,
    REASON_ATTRIBUTE,
    REASON_CHARS_MAX,
    UNEXPLAINED,
    DeadLetter,
    DeadLetterQueue,
    read_dead_letter,
)
from dynein.delivery.destinations import Destinations
from dynein.errors import Throttled, Unavailable, UnknownQueue
from dynein.testing import FakeQueues, ManualClock

SEAL = Seal([b"0123456789abcdef"])
RECORD = encode_job(Job("gone", "héllo"))


class Setting:
    def __init__(self, *, message_bytes_max: int = 262_144) -> None:
        self.clock = ManualClock()
        self.queues = FakeQueues(self.clock, message_bytes_max=message_bytes_max)
        self.queues.create("dead")
        destinations = Destinations(self.queues, self.clock, ttl_s=300)
        self.dead_letters = DeadLetterQueue(
            self.queues, destinations, "dead", SEAL, message_bytes_max=message_bytes_max
        )

    def read(self) -> list[DeadLetter]:
        return [read_dead_letter(message) for message in self.queues.peek("dead")]


async def test_a_job_comes_back_as_it_was() -> None:
    s = Setting()
    await s.dead_letters.add_job(RECORD, "TOKEN", 123_456, "UnknownQueue: gone")
    (letter,) = s.read()
    assert letter[:5] == (KIND_JOB, RECORD.decode(), "UnknownQueue: gone", "TOKEN", 123_456)
    assert letter.is_ours(SEAL)
    assert not letter.is_ours(Seal([b"somebody else's secret"]))


async def test_a_job_with_anything_else_in_it_is_not_ours() -> None:
    s = Setting()
    await s.dead_letters.add_job(RECORD, "TOKEN", 123_456, "UnknownQueue: gone")
    (letter,) = s.read()
    changes = ({"body": letter.body + " "}, {"token": "NEKOT"}, {"due_at_ms": 123_455}, {"signature": ""})
    assert not any(letter._replace(**change).is_ours(SEAL) for change in changes)
    assert letter._replace(reason="another").is_ours(SEAL), "that is for people"


async def test_an_unreadable_inbound_message_comes_back_as_it_was() -> None:
    s = Setting()
    await s.dead_letters.add_inbound("{garbage", "not an inbound message")
    assert s.read() == [(KIND_INBOUND, "{garbage", "not an inbound message", None, None, "")]
    assert not s.read()[0].is_ours(SEAL)


async def test_what_sqs_moved_there_itself_reads_as_an_inbound_message() -> None:
    s = Setting()
    await s.queues.send(s.queues.url("dead"), [OutgoingMessage("body", {})])
    ((kind, body, reason, token, due_at_ms, _),) = s.read()
    assert (kind, body, token, due_at_ms) == (KIND_INBOUND, "body", None, None)
    assert "moved by SQS" in reason


@given(st.text(max_size=3000))
def test_whatever_the_reason_sqs_takes_it_and_it_stays_within_the_overhead(reason: str) -> None:
    async def scenario() -> None:
        s = Setting(message_bytes_max=len(RECORD) + OVERHEAD_BYTES)
        await s.dead_letters.add_job(RECORD, "T" * 52, 281_474_976_710_655, reason)
        (message,) = s.queues.peek("dead")
        assert 1 <= len(message.attributes[REASON_ATTRIBUTE].value) <= REASON_CHARS_MAX
        assert message_bytes(message.body, message.attributes) - len(RECORD) <= OVERHEAD_BYTES
        assert len(message.attributes) <= ATTRIBUTES_MAX

    asyncio.run(scenario())


async def test_a_long_reason_is_cut_so_that_a_large_job_still_fits() -> None:
    s = Setting(message_bytes_max=2_048)
    record = encode_job(Job("gone", "x" * 1_600))
    await s.dead_letters.add_job(record, "T" * 52, 1, "é" * 1_000)
    (message,) = s.queues.peek("dead")
    assert message.body == record.decode()
    assert 2_040 <= message_bytes(message.body, message.attributes) <= 2_048


@pytest.mark.parametrize("bytes_left", [0, 51, 52, 60, 1_000])
async def test_an_inbound_message_of_any_size_arrives_with_as_much_of_its_reason_as_there_is_room_for(
    bytes_left: int,
) -> None:
    """Another program may have filled it to the last byte; it would be received many times until SQS moved it."""
    s = Setting(message_bytes_max=8_192)
    body = "x" * (8_192 - bytes_left)
    await s.dead_letters.add_inbound(body, "r" * 100)
    (letter,) = s.read()
    assert (letter.kind, letter.body) == (KIND_INBOUND, body)
    kind_and_names = len(KIND_ATTRIBUTE + KIND_INBOUND + REASON_ATTRIBUTE) + 2 * len("String")
    room = bytes_left - kind_and_names
    assert letter.reason == ("r" * min(room, 100) if room > 0 else UNEXPLAINED)


async def test_a_record_that_is_no_text_can_still_be_read_by_a_person() -> None:
    s = Setting()
    await s.dead_letters.add_job(b"\xff\x01abc"[:1] + b"abc", "TOKEN", 1, "undecodable")
    assert s.queues.messages("dead") == ["\\xffabc"]
    assert s.read()[0].is_ours(SEAL), "as it is there"


async def test_dead_letters_of_one_moment_leave_together() -> None:
    s = Setting()
    await asyncio.gather(*(s.dead_letters.add_job(RECORD, f"T{i}", i, "gone") for i in range(25)))
    assert sorted(letter[3] or "" for letter in s.read()) == sorted(f"T{i}" for i in range(25))
    sends = [call.entries for call in s.queues.faults.calls if call.verb == "send"]
    assert sends == [10, 10, 5]


async def test_what_the_queue_did_not_acknowledge_is_an_error() -> None:
    s = Setting()
    s.queues.faults.fail_entries_next("send", [0], code="InternalError")
    with pytest.raises(Unavailable, match="InternalError"):
        await s.dead_letters.add_job(RECORD, "TOKEN", 1, "r")
    s.queues.faults.fail_next("send", Throttled("slow down"))
    with pytest.raises(Throttled):
        await s.dead_letters.add_job(RECORD, "TOKEN", 1, "r")
    assert s.read() == []


async def test_a_queue_made_anew_is_found_again() -> None:
    s = Setting()
    await s.dead_letters.add_job(RECORD, "TOKEN", 1, "r")
    s.queues.remove("dead")
    with pytest.raises(UnknownQueue):
        await s.dead_letters.add_job(RECORD, "TOKEN", 1, "r")
    with pytest.raises(UnknownQueue):
        await s.dead_letters.add_job(RECORD, "TOKEN", 1, "r")
    s.queues.create("dead")
    await s.clock.advance(5)  # a missing queue is remembered as missing for that long
    await s.dead_letters.add_job(RECORD, "TOKEN", 1, "r")
    assert len(s.read()) == 1
