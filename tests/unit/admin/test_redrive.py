"""Redrive: what goes where, what stays, and that nothing is lost on the way."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from pydantic import SecretStr

from dynein.admin import redrive as redrive_module
from dynein.admin.redrive import NOT_DUE, TOO_OLD, Report, redrive
from dynein.admin.redrive_selection import Selection
from dynein.core.delivered_message import DUE_AT_ATTRIBUTE, TOKEN_ATTRIBUTE
from dynein.core.inbound_message import Entry, pack
from dynein.core.job import Attribute, Job, encode_job
from dynein.core.job_token import JobRef, TokenKind, TokenSigner
from dynein.core.keys import TriggerKey
from dynein.core.queues import OutgoingMessage, Received, message_bytes
from dynein.core.seal import Seal
from dynein.delivery.dead_letter_queue import KIND_INBOUND, SIGNATURE_ATTRIBUTE, DeadLetterQueue
from dynein.delivery.destinations import Destinations
from dynein.errors import Throttled, Unavailable
from dynein.settings import Settings
from dynein.testing import FakeQueues, ManualClock
from dynein.testing.queues import Sent

DLQ, INBOUND = "dead", "inbound"
DUE_MS = 1_749_999_000_123
SECRET = "0123456789abcdef"
SIGNER, SEAL = TokenSigner([SECRET.encode()]), Seal([SECRET.encode()])


def token(number: int) -> str:
    return SIGNER.sign(JobRef(TokenKind.SCHEDULED, TriggerKey(DUE_MS, number.to_bytes(12, "big"), 0)))


def settings(**others: Any) -> Settings:
    return Settings(dead_letter_queue=DLQ, inbound_queue=INBOUND, token_secrets=SecretStr(SECRET), **others)


class World:
    def __init__(self) -> None:
        self.clock = ManualClock()
        self.settings = settings()
        self.queues = FakeQueues(self.clock)
        for name in ("a", "b", "c.fifo", DLQ, INBOUND):
            self.queues.create(name)
        self.destinations = Destinations(self.queues, self.clock, ttl_s=300.0)
        self.dead_letters = DeadLetterQueue(self.queues, self.destinations, DLQ, SEAL)
        self._jobs = 0

    async def add(
        self, queue: str, body: str = "x", *, reason: str = "UnknownQueue: gone", due_at_ms: int = DUE_MS
    ) -> str:
        self._jobs += 1
        group = "g" if queue.endswith(".fifo") else None
        job = Job(queue=queue, body=body, name="n", message_group_id=group)
        await self.dead_letters.add_job(encode_job(job), token(self._jobs), due_at_ms, reason)
        return token(self._jobs)

    async def redrive(self, **options: Any) -> Report:
        before = self.clock.monotonic()
        report = await self.clock.result_of(
            redrive(self.queues, self.destinations, self.clock, self.settings, **options)
        )
        assert self.clock.monotonic() - before < 60, "nothing was waited for but the last empty responses"
        return report

    def bodies(self, queue: str) -> list[str]:
        return self.queues.messages(queue)

    def count(self, verb: str, target: str) -> int:
        return sum((call.verb, call.target) == (verb, target) for call in self.queues.faults.calls)


@pytest.fixture
async def world() -> World:
    return World()


async def test_a_dead_lettered_job_is_delivered_as_the_first_time(world: World) -> None:
    sent = await world.add("a", "hello")
    report = await world.redrive()
    assert report == Report(examined=1, redriven=1, skipped=0, failed={}, stopped="empty")
    (message,) = world.queues.peek("a")
    assert message.body == "hello"
    values = {name: attribute.value for name, attribute in message.attributes.items()}
    assert values == {TOKEN_ATTRIBUTE: sent, DUE_AT_ATTRIBUTE: str(DUE_MS), "dynein-name": "n"}
    assert world.queues.everything(DLQ) == []


async def test_jobs_go_to_their_own_destinations_fifo_ones_with_their_group_and_token(world: World) -> None:
    for i in range(12):
        await world.add(("a", "b", "c.fifo")[i % 3], str(i))
    report = await world.redrive()
    assert report.redriven == 12
    assert world.bodies("a") == ["0", "3", "6", "9"]
    assert world.bodies("b") == ["1", "4", "7", "10"]
    assert world.bodies("c.fifo") == ["2", "5", "8", "11"]
    assert world.count("send", "a") <= 2, "by batch"


async def test_a_dead_letter_for_a_standard_queue_keeps_its_message_group(world: World) -> None:
    sent: list[Sent] = []
    world.queues.on_sent.append(sent.append)
    record = encode_job(Job(queue="a", body="x", message_group_id="tenant-7"))
    await world.dead_letters.add_job(record, token(1), DUE_MS, "gone")
    assert (await world.redrive()).redriven == 1
    messages = [each.message for each in sent if each.queue == "a"]
    assert [(message.message_group_id, message.deduplication_id) for message in messages] == [("tenant-7", None)]


async def test_a_dead_lettered_inbound_message_goes_back_to_the_inbound_queue(world: World) -> None:
    body = pack([Entry(token(1), "create", encode_job(Job(queue="a", body="x")))], SEAL)
    await world.dead_letters.add_inbound(body, "not an inbound message")
    await world.queues.send(world.queues.url(DLQ), [OutgoingMessage(body, {})])  # as SQS's own redrive leaves it
    assert (await world.redrive()).redriven == 2
    assert world.bodies(INBOUND) == [body, body]


async def test_a_job_is_not_early_only_because_it_is_dead(world: World) -> None:
    """A job for a shard that does not exist is dead-lettered when it is ingested, long before it is due."""
    due_at_ms = world.clock.now_ms() + 3_600_000
    await world.add("a", "later", due_at_ms=due_at_ms)
    await world.add("a", "due")
    report = await world.redrive()
    assert report == Report(examined=2, redriven=1, skipped=0, failed={NOT_DUE: 1}, stopped="empty")
    assert world.bodies("a") == ["due"]
    await world.clock.advance((due_at_ms - world.clock.now_ms()) / 1000)
    assert (await world.redrive()).redriven == 1
    assert world.bodies("a") == ["due", "later"]


DAY_MS = 86_400_000


@pytest.mark.parametrize(("age_days", "redriven"), [(13.9, 1), (14.1, 0)])
async def test_an_inbound_message_stays_when_a_cancel_of_its_jobs_may_be_forgotten(
    world: World, age_days: float, redriven: int
) -> None:
    """A tombstone is kept for 15 days after the due time, and the message may take a while until it is ingested."""
    entries = []
    for number, due_at_ms in enumerate((world.clock.now_ms() - int(age_days * DAY_MS), world.clock.now_ms())):
        key = TriggerKey(due_at_ms, number.to_bytes(12, "big"), 0)
        record: Any = encode_job(Job(queue="a", body="x"))
        entries.append(Entry(SIGNER.sign(JobRef(TokenKind.SCHEDULED, key)), "", record))
    await world.dead_letters.add_inbound(pack(entries, SEAL), "poison")
    report = await world.redrive()
    assert report == Report(1, redriven, 0, {} if redriven else {TOO_OLD: 1}, "empty")
    assert len(world.bodies(INBOUND)) == redriven
    assert len(world.queues.peek(DLQ)) == 1 - redriven


async def test_a_dead_lettered_job_is_redriven_however_old_it_is(world: World) -> None:
    """It was past its marks: nobody can have cancelled it since."""
    await world.add("a", due_at_ms=world.clock.now_ms() - 100 * DAY_MS)
    assert (await world.redrive()).redriven == 1


async def test_two_redrives_at_a_time_redrive_each_dead_letter_once(world: World) -> None:
    for i in range(200):
        await world.add("a" if i % 2 else "b", str(i))
    both = [redrive(world.queues, world.destinations, world.clock, world.settings) for _ in range(2)]
    reports = await world.clock.result_of(asyncio.gather(*both))
    assert sum(report.redriven for report in reports) == 200
    assert all(report.redriven for report in reports), "they share the work"
    assert sorted(world.bodies("a") + world.bodies("b"), key=int) == [str(i) for i in range(200)]


async def test_an_empty_queue(world: World) -> None:
    assert await world.redrive() == Report(0, 0, 0, {}, "empty")


async def test_one_empty_response_does_not_mean_an_empty_queue(world: World) -> None:
    await world.add("a")
    held = await world.queues.receive(world.queues.url(DLQ), entries_max=1, wait_s=0, visibility_timeout_s=2)
    assert held, "so the first responses of the redrive are empty"
    assert (await world.redrive()).redriven == 1


# --- selection ------------------------------------------------------------------------------------------------------


async def test_dead_letters_not_selected_are_given_back_at_once(world: World) -> None:
    for i in range(25):
        await world.add("a" if i % 2 else "b", str(i), reason="Throttled: slow" if i < 10 else "UnknownQueue: gone")
    report = await world.redrive(selection=Selection(queue="a", reason="Throttled"))
    assert report == Report(examined=25, redriven=5, skipped=20, failed={}, stopped="empty")
    assert world.bodies("a") == ["1", "3", "5", "7", "9"]
    assert world.bodies("b") == []
    assert len(world.queues.peek(DLQ)) == 20, "visible, without waiting for the timeout"


async def test_a_queue_is_selected_by_name_for_jobs_that_give_its_url(world: World) -> None:
    await world.add(world.queues.url("a"))
    assert (await world.redrive(selection=Selection(queue="a"))).redriven == 1
    await world.add(world.queues.url("a"))
    assert (await world.redrive(selection=Selection(queue=world.queues.url("a")))).redriven == 1


async def test_dead_lettered_inbound_messages_have_no_destination(world: World) -> None:
    body = pack([Entry(token(1), "create", encode_job(Job(queue=INBOUND, body="x")))], SEAL)
    await world.dead_letters.add_inbound(body, "poison")
    assert (await world.redrive(selection=Selection(queue=INBOUND))).skipped == 1
    assert (await world.redrive(selection=Selection(reason="poison"))).redriven == 1


async def test_max_bounds_what_is_redriven(world: World) -> None:
    for i in range(30):
        await world.add("a", str(i))
    report = await world.redrive(dead_letters_max=13)
    assert report == Report(examined=13, redriven=13, skipped=0, failed={}, stopped="max")
    assert len(world.bodies("a")) == 13
    assert len(world.queues.peek(DLQ)) == 17


async def test_dead_letters_kept_invisible_are_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redrive_module, "HELD_MAX", 10)
    for i in range(30):
        await world.add("a", str(i))
    report = await world.redrive(selection=Selection(queue="b"))
    assert (report.skipped, report.stopped) == (10, "held_max")
    assert len(world.queues.peek(DLQ)) == 30


# --- failures -------------------------------------------------------------------------------------------------------


async def test_what_cannot_be_sent_stays_and_is_counted_by_reason(world: World) -> None:
    await world.add("a", "1")
    await world.add("missing", "2")
    await world.add("missing", "3")
    await world.dead_letters.add_inbound("not json", "poison")
    await world.queues.send(world.queues.url(DLQ), [OutgoingMessage("", {}), OutgoingMessage("junk", {})])
    report = await world.redrive()
    assert report.redriven == 1
    assert sum(report.failed.values()) == 4
    assert [why for why, count in report.failed.items() if count == 2 and why.startswith("UnknownQueue: queue 'miss")]
    assert [why for why in report.failed if why.startswith("not an inbound message")]
    assert len(world.queues.peek(DLQ)) == 4
    assert world.bodies(INBOUND) == []


async def test_a_dead_letter_without_token_or_due_time_stays(world: World) -> None:
    await world.add("a")
    (message,) = world.queues.peek(DLQ)
    attributes = {name: value for name, value in message.attributes.items() if name != TOKEN_ATTRIBUTE}
    await world.queues.send(world.queues.url(DLQ), [OutgoingMessage(message.body, attributes)])
    report = await world.redrive()
    assert report.redriven == 1
    assert report.failed == {"the dead letter has no token or no due time": 1}


async def test_only_entries_that_were_acknowledged_are_deleted(world: World) -> None:
    for i in range(3):
        await world.add("a", str(i))
    world.queues.faults.fail_entries_next("send", [1], code="InternalError")
    report = await world.redrive()
    assert (report.redriven, report.failed) == (2, {"InternalError: as the test asked": 1})
    assert world.bodies("a") == ["0", "2"]
    assert len(world.queues.peek(DLQ)) == 1


@pytest.mark.parametrize("error", [Throttled("slow down"), Unavailable("no response")])
async def test_a_send_that_failed_as_a_whole_leaves_every_dead_letter(world: World, error: Exception) -> None:
    for i in range(3):
        await world.add("a", str(i))
    world.queues.faults.fail_next("send", error)
    report = await world.redrive()
    assert report.failed == {f"{type(error).__name__}: {error}": 3}
    assert len(world.queues.peek(DLQ)) == 3


async def test_a_dead_letter_whose_delete_failed_is_not_sent_twice_in_one_run(world: World) -> None:
    await world.add("a", "1")
    await world.add("b", "2")
    world.queues.faults.fail_next("delete", Unavailable("no response"))
    report = await world.redrive()
    assert report.redriven == 2
    assert world.bodies("a") == ["1"]
    assert len(world.queues.everything(DLQ)) == 1
    assert world.queues.peek(DLQ) == [], "not given back: it would be sent a second time"


async def test_a_dead_letter_received_a_second_time_ends_the_run_and_is_deleted_if_it_was_sent(
    world: World,
) -> None:
    await world.add("a", "1")
    world.queues.faults.duplicate_next()
    world.queues.faults.fail_next("delete", Unavailable("no response"))
    report = await world.redrive()
    assert (report.redriven, report.stopped) == (1, "came_round")
    assert world.bodies("a") == ["1"]
    assert world.queues.everything(DLQ) == []


async def test_an_unselected_dead_letter_that_is_received_a_second_time_ends_the_run(world: World) -> None:
    await world.add("a", "1")
    world.queues.faults.duplicate_next()
    report = await world.redrive(selection=Selection(queue="b"))
    assert (report.examined, report.skipped, report.stopped) == (1, 1, "came_round")
    assert len(world.queues.peek(DLQ)) == 1


async def test_when_the_dead_letter_queue_fails_the_dead_letters_held_are_given_back(world: World) -> None:
    for i in range(15):
        await world.add("b", str(i))
    gate = world.queues.faults.hold_before_next("receive")
    world.queues.faults.fail_next("receive", Unavailable("no response"))
    gate.open()
    with pytest.raises(Unavailable):
        await world.redrive(selection=Selection(queue="a"))
    assert len(world.queues.peek(DLQ)) == 15


async def test_a_batch_stays_within_the_payload_limit(world: World) -> None:
    for i in range(6):
        await world.add("a", str(i) * 3000)
    world.settings = settings(message_bytes_max=8192, pack_bytes_max=8192)
    report = await world.redrive()
    assert report.redriven == 6
    sizes = [call.entries for call in world.queues.faults.calls if (call.verb, call.target) == ("send", "a")]
    (first, *_) = world.queues.peek("a")
    assert sizes == [8192 // message_bytes(first.body, first.attributes)] * 3


async def test_progress_is_reported(world: World) -> None:
    for i in range(25):
        await world.add("a", str(i))
    seen: list[int] = []
    await world.redrive(on_progress=lambda report: seen.append(report.redriven))
    assert seen[:3] == [10, 20, 25]


async def test_a_job_for_one_of_dyneins_own_queues_stays(world: World) -> None:
    await world.add(INBOUND)
    report = await world.redrive()
    assert report.redriven == 0
    assert sum(report.failed.values()) == 1
    assert world.bodies(INBOUND) == []


# --- what this deployment did not sign ------------------------------------------------------------------------------

FOREIGN = Seal([b"another deployment's secret"])


def changed(message: Received, body: str | None = None, **attributes: Attribute | None) -> OutgoingMessage:
    """A dead letter with something else in it. ``None`` takes an attribute away."""
    changes = {name.replace("_", "-"): value for name, value in attributes.items()}
    kept = {name: value for name, value in {**message.attributes, **changes}.items() if value is not None}
    return OutgoingMessage(message.body if body is None else body, kept)


async def test_a_dead_letter_that_was_changed_in_any_way_stays(world: World) -> None:
    await world.add("a", "genuine")
    await world.add("b", "another")
    genuine, another = world.queues.peek(DLQ)
    forged = [
        changed(genuine, genuine.body.replace("genuine", "altered")),
        changed(genuine, genuine.body.replace('"a"', '"b"')),
        changed(genuine, another.body),
        changed(genuine, dynein_token=another.attributes[TOKEN_ATTRIBUTE]),
        changed(genuine, dynein_due_at=Attribute("Number", str(DUE_MS - 1))),
        changed(genuine, dynein_signature=another.attributes[SIGNATURE_ATTRIBUTE]),
        changed(genuine, dynein_signature=None),
    ]
    await world.queues.send(world.queues.url(DLQ), forged)
    report = await world.redrive()
    assert report.redriven == 2
    assert world.bodies("a") == ["genuine"]
    assert world.bodies("b") == ["another"]
    ((reason, count),) = report.failed.items()
    assert count == len(forged)
    assert "signature is not this deployment's" in reason
    assert "DYNEIN_TOKEN_SECRETS" in reason
    assert len(world.queues.peek(DLQ)) == len(forged), "for an operator to look at"


async def test_a_dead_letter_of_another_deployment_stays(world: World) -> None:
    foreign = DeadLetterQueue(world.queues, world.destinations, DLQ, FOREIGN)
    await foreign.add_job(encode_job(Job(queue="a", body="x")), token(1), DUE_MS, "gone")
    await foreign.add_inbound(pack([Entry(token(1), "", encode_job(Job("a", "x")))], FOREIGN), "gone")
    report = await world.redrive()
    assert (report.redriven, sum(report.failed.values())) == (0, 2)
    assert world.bodies("a") + world.bodies(INBOUND) == []


async def test_a_job_cannot_pass_for_an_inbound_message_nor_one_for_a_job(world: World) -> None:
    await world.add("a", "genuine")
    body = pack([Entry(token(1), "", encode_job(Job("a", "x")))], SEAL)
    await world.dead_letters.add_inbound(body, "not an inbound message")
    job, inbound = world.queues.peek(DLQ)
    forged = [
        changed(job, dynein_dead_letter=Attribute("String", KIND_INBOUND)),
        changed(job, inbound.body),
        OutgoingMessage(inbound.body, job.attributes),
        changed(inbound, job.body),
    ]
    await world.queues.send(world.queues.url(DLQ), forged)
    report = await world.redrive()
    assert (report.redriven, sum(report.failed.values())) == (2, len(forged))
    assert world.bodies("a") == ["genuine"]
    assert world.bodies(INBOUND) == [body]


async def test_what_a_process_with_the_former_secret_dead_lettered_is_redriven_while_that_is_kept(world: World) -> None:
    await world.add("a", "genuine")
    world.settings = settings().model_copy(update={"token_secrets": SecretStr(f"the secret that is new,{SECRET}")})
    assert (await world.redrive()).redriven == 1


async def test_an_inbound_message_with_an_entry_that_cannot_be_read_stays(world: World) -> None:
    """It would only come back, while its other entries were done a second time."""
    body = pack([Entry("no token", "", encode_job(Job("a", "x")))], SEAL)
    await world.dead_letters.add_inbound(body, "an entry cannot be read")
    report = await world.redrive()
    ((reason, _),) = report.failed.items()
    assert reason == "an entry of an inbound message cannot be read: a job token has 52 characters, this one has 8"
    assert world.bodies(INBOUND) == []


@pytest.mark.parametrize("due_at", ["9" * 5000, "9" * 16, "-1", "1.5", "\u0661", "soon"])
async def test_whatever_is_written_as_a_due_time_the_others_are_redriven(world: World, due_at: str) -> None:
    await world.add("a", "genuine")
    (genuine,) = world.queues.peek(DLQ)
    await world.queues.send(
        world.queues.url(DLQ), [changed(genuine, dynein_due_at=Attribute("String", due_at)), changed(genuine)]
    )
    report = await world.redrive()
    assert (report.redriven, sum(report.failed.values())) == (2, 1)


async def test_without_a_secret_nothing_is_redriven(world: World) -> None:
    await world.add("a")
    world.settings = settings().model_copy(update={"token_secrets": None})
    with pytest.raises(ValueError, match="at least one secret"):
        await world.redrive()
    assert len(world.queues.peek(DLQ)) == 1
