"""Delivery, row by row of the table in `dynein.delivery`."""

import asyncio
import random
from collections.abc import Callable

import msgspec
import pytest

from dynein.core.delivered_message import DUE_AT_ATTRIBUTE, TOKEN_ATTRIBUTE
from dynein.core.due_job import DueJob, Outcome
from dynein.core.job import Attribute, Job, decode_job, encode_job
from dynein.core.job_token import JobRef, TokenKind, TokenSigner
from dynein.core.keys import TriggerKey
from dynein.core.ledger import Counts, Tally, balance_of
from dynein.core.seal import Seal
from dynein.core.trigger import Trigger
from dynein.delivery.dead_letter_queue import DeadLetterQueue, read_dead_letter
from dynein.delivery.delivery import Delivery
from dynein.delivery.destinations import Destinations
from dynein.errors import AccessDenied, DyneinError, Overloaded, Throttled, Unavailable, UnknownQueue
from dynein.observability.telemetry import Telemetry
from dynein.observability.tracing import Tracing
from dynein.runtime.context import Context
from dynein.settings import Settings
from dynein.testing import FakeQueues, Faults, ManualClock

DLQ = "dead"
BUDGET_S = 60.0
BACKOFF_MAX_S = 5.0
SIGNER, SEAL = TokenSigner([b"0123456789abcdef"]), Seal([b"0123456789abcdef"])


class World:
    """A `Delivery` on fakes. The dead-letter queue is reached over a connection with faults of its own."""

    def __init__(
        self, *, waiting_max: int = 1000, in_flight_max: int = 4, lanes_max: int = 100, tracing: Tracing | None = None
    ) -> None:
        self.clock = ManualClock()
        self.queues = FakeQueues(self.clock)
        self.dead_faults = Faults()
        self.telemetry = Telemetry()
        for name in ("a", "b", "c.fifo", DLQ):
            self.queues.create(name)
        self.destinations = Destinations(self.queues, self.clock, ttl_s=300.0)
        dead_queues = self.queues.connect(self.dead_faults)
        self.tally = Tally(1)
        self.delivery = Delivery(
            "dispatcher",
            self.queues,
            self.destinations,
            DeadLetterQueue(dead_queues, Destinations(dead_queues, self.clock, ttl_s=300.0), DLQ, SEAL),
            Context(self.clock, random.Random(7), self.telemetry, self.tally),
            Settings(
                lane_waiting_max=waiting_max,
                lane_in_flight_max=in_flight_max,
                backoff_first_s=0.1,
                backoff_max_s=BACKOFF_MAX_S,
                retry_budget_s=BUDGET_S,
            ),
            tracing=tracing,
            lanes_max=lanes_max,
        )
        self._jobs = 0

    @property
    def faults(self) -> Faults:
        return self.queues.faults

    def due_job(
        self,
        queue: str,
        body: str = "hello",
        *,
        attributes: dict[str, Attribute] | None = None,
        traceparent: str | None = None,
        may_send: Callable[[], bool] = lambda: True,
    ) -> DueJob:
        self._jobs += 1
        key = TriggerKey(self.clock.now_ms(), self._jobs.to_bytes(12, "big"), 0)
        group = "g" if queue.endswith(".fifo") else None
        job = Job(queue=queue, body=body, attributes=attributes or {}, message_group_id=group, traceparent=traceparent)
        return DueJob(Trigger(key, SIGNER.sign(JobRef(TokenKind.SCHEDULED, key)), encode_job(job)), job, may_send)

    def submit(self, queue: str, *bodies: str) -> list[asyncio.Future[Outcome]]:
        return [self.delivery.submit(self.due_job(queue, body)) for body in bodies]

    def sends(self, queue: str) -> int:
        return sum(call.verb == "send" and call.target == queue for call in self.faults.calls)

    def count(self, name: str, **labels: str) -> float:
        """The sum of all series that have these labels."""
        samples = [sample for metric in self.telemetry.registry.collect() for sample in metric.samples]
        return sum(
            sample.value for sample in samples if sample.name == name and labels.items() <= sample.labels.items()
        )

    def tallied(self) -> Counts:
        """All that was counted for the ledger."""
        return balance_of(self.tally.take(self.clock.now_ms(), 1000).values()).flows

    async def outcome(self, future: asyncio.Future[Outcome]) -> Outcome:
        return await self.clock.result_of(future)


@pytest.fixture
async def world() -> World:
    return World()


# --- entry acknowledged ---------------------------------------------------------------------------------------------


async def test_an_acknowledged_entry_is_sent_with_its_token_in_one_call_with_its_batch(world: World) -> None:
    due_jobs = [world.due_job("a", str(i)) for i in range(10)]
    futures = [world.delivery.submit(due_job) for due_job in due_jobs]
    assert [await world.outcome(future) for future in futures] == [Outcome.SENT] * 10
    arrived = world.queues.peek("a")
    assert [message.body for message in arrived] == [str(i) for i in range(10)]
    tokens = [message.attributes[TOKEN_ATTRIBUTE].value for message in arrived]
    assert tokens == [due_job.trigger.token for due_job in due_jobs]
    assert world.sends("a") == 1
    assert world.count("dynein_jobs_delivered_total", role="dispatcher", queue="a") == 10
    assert world.tallied() == Counts(delivered=10)


async def test_a_job_of_a_fifo_queue_takes_its_place_among_those_that_wait(world: World) -> None:
    gate = world.faults.hold_before_next("send")
    due_jobs = [world.due_job("c.fifo", str(i)) for i in range(4)]
    futures = [world.delivery.submit(due_jobs[i]) for i in (0,)]
    await gate.reached.wait()
    futures += [world.delivery.submit(due_jobs[i]) for i in (2, 3, 1)]  # 1 was read late
    gate.open()
    assert [await world.outcome(future) for future in futures] == [Outcome.SENT] * 4
    assert world.queues.messages("c.fifo") == ["0", "1", "2", "3"]


async def test_a_due_job_is_visible_at_once_whatever_the_delay_of_its_queue(world: World) -> None:
    world.queues.create("slow", delay_s=10)
    (future,) = world.submit("slow", "x")
    assert await world.outcome(future) is Outcome.SENT
    assert world.queues.messages("slow") == ["x"]
    assert world.count("dynein_lateness_seconds_sum", queue="slow") == 0


async def test_the_delay_that_a_fifo_queue_imposes_is_lateness(world: World) -> None:
    world.queues.create("slow.fifo", delay_s=10)
    (future,) = world.submit("slow.fifo", "x")
    assert await world.outcome(future) is Outcome.SENT
    assert world.queues.messages("slow.fifo") == []
    assert world.count("dynein_lateness_seconds_sum", queue="slow.fifo") == 10


async def test_a_job_that_is_sent_earlier_for_that_delay_is_not_late(world: World) -> None:
    world.queues.create("slow.fifo", delay_s=10)
    due_job = world.due_job("slow.fifo")
    due_job = due_job._replace(job=msgspec.structs.replace(due_job.job, lead_ms=10_000))
    assert await world.outcome(world.delivery.submit(due_job)) is Outcome.SENT
    assert world.count("dynein_lateness_seconds_count", queue="slow.fifo") == 1
    assert world.count("dynein_lateness_seconds_sum", queue="slow.fifo") == 0
    await world.clock.advance(10)
    (message,) = world.queues.peek("slow.fifo")
    assert message.attributes[DUE_AT_ATTRIBUTE].value == str(world.clock.now_ms())


async def test_a_job_that_its_queue_no_longer_takes_for_its_size_is_dead_lettered_with_the_reason(world: World) -> None:
    world.queues.change("a", message_bytes_max=1024)
    large, small = world.submit("a", "x" * 5_000, "y")
    assert await world.outcome(large) is Outcome.DEAD_LETTERED
    assert await world.outcome(small) is Outcome.SENT
    (dead,) = world.queues.peek(DLQ)
    assert "shorter than 1024 bytes" in read_dead_letter(dead).reason


async def test_lateness_is_measured_to_the_send_not_to_the_look_up_before_it(world: World) -> None:
    gate = world.faults.hold_before_next("resolve")
    (future,) = world.submit("a", "x")
    await world.clock.settle()
    await world.clock.advance(2.0)
    gate.open()
    await world.outcome(future)
    assert world.count("dynein_lateness_seconds_sum", role="dispatcher", queue="a") == pytest.approx(2.0)


# --- entry refused for its content ----------------------------------------------------------------------------------


async def test_a_refused_entry_is_dead_lettered_at_once_and_its_neighbours_are_sent(world: World) -> None:
    bad = world.due_job("a", "bad", attributes={"n": Attribute("Number", "abc")})
    futures = [world.delivery.submit(p) for p in (world.due_job("a", "1"), bad, world.due_job("a", "2"))]
    await world.clock.settle()
    outcomes = [future.result() for future in futures]
    assert outcomes == [Outcome.SENT, Outcome.DEAD_LETTERED, Outcome.SENT], "no time had to pass"
    assert world.queues.messages("a") == ["1", "2"]
    (message,) = world.queues.peek(DLQ)
    dead_letter = read_dead_letter(message)
    assert decode_job(dead_letter.body.encode()) == bad.job
    assert (dead_letter.kind, dead_letter.token, dead_letter.due_at_ms) == (
        "job",
        bad.trigger.token,
        bad.trigger.key.due_at_ms,
    )
    assert dead_letter.reason.startswith("InvalidParameterValue: ")
    assert world.count("dynein_jobs_dead_lettered_total", role="dispatcher", queue="a") == 1
    assert world.count("dynein_send_failures_total", queue="a", remedy="reject") == 1


async def test_a_refused_entry_does_not_pause_its_lane(world: World) -> None:
    world.faults.fail_entries_next("send", [0], code="InvalidMessageContents", permanent=True)
    (bad,) = world.submit("a", "bad")
    await world.clock.settle()
    assert bad.result() is Outcome.DEAD_LETTERED
    (good,) = world.submit("a", "good")
    await world.clock.settle()
    assert good.result() is Outcome.SENT


async def test_a_refused_entry_of_a_lost_shard_is_left_to_its_next_owner(world: World) -> None:
    owned = True
    gate = world.faults.hold_answer_next("send")
    world.faults.fail_entries_next("send", [0], code="InvalidMessageContents", permanent=True)
    future = world.delivery.submit(world.due_job("a", may_send=lambda: owned))
    await gate.reached.wait()
    owned = False
    gate.open()
    assert await world.outcome(future) is Outcome.ABANDONED
    assert world.queues.messages(DLQ) == []


# --- throttled, failed, no reply; missing, denied -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (Throttled("slow down"), "retry"),
        (Unavailable("no response"), "retry"),
        (UnknownQueue("a"), "reject"),
        (AccessDenied("no"), "stop"),
        (KeyError("bug"), "retry"),
    ],
)
async def test_a_failed_call_pauses_the_lane_then_tries_the_same_batch_again(
    world: World, error: Exception, remedy: str
) -> None:
    world.faults.fail_next("send", error, times=3)
    futures = world.submit("a", "1", "2")
    await world.clock.settle()
    assert world.sends("a") == 1
    assert world.clock.sleepers == 1, "it waits out a pause"
    assert [await world.outcome(future) for future in futures] == [Outcome.SENT] * 2
    assert world.sends("a") == 4
    assert world.queues.messages("a") == ["1", "2"]
    assert world.queues.messages(DLQ) == []
    assert world.clock.monotonic() >= (0.1 + 0.2 + 0.4) / 2, "equal jitter: at least half of each doubled pause"
    assert world.count("dynein_send_failures_total", code=type(error).__name__, queue="a", remedy=remedy) == 6


async def test_only_the_failed_entries_are_sent_again(world: World) -> None:
    world.faults.fail_entries_next("send", [1], code="InternalError")
    futures = world.submit("a", "0", "1", "2")
    await world.clock.settle()
    # What was acknowledged is known at once. Else a handover or a crash meanwhile would send it twice.
    assert [future.done() for future in futures] == [True, False, True]
    assert [await world.outcome(future) for future in futures] == [Outcome.SENT] * 3
    assert world.queues.messages("a") == ["0", "2", "1"]


async def test_a_send_without_a_response_that_took_effect_is_repeated_and_named_by_its_token(world: World) -> None:
    world.faults.lose_answer_next("send", Unavailable("no response"))
    (standard,) = world.submit("a", "x")
    assert await world.outcome(standard) is Outcome.SENT
    first, second = world.queues.peek("a")
    assert first.attributes[TOKEN_ATTRIBUTE] == second.attributes[TOKEN_ATTRIBUTE]
    world.faults.lose_answer_next("send", Unavailable("no response"))
    (fifo,) = world.submit("c.fifo", "x")
    assert await world.outcome(fifo) is Outcome.SENT
    assert world.queues.messages("c.fifo") == ["x"], "the token is the deduplication id"


@pytest.mark.parametrize("error", [UnknownQueue("a"), AccessDenied("no")])
async def test_a_missing_or_denied_queue_is_looked_up_anew_before_each_try(world: World, error: DyneinError) -> None:
    world.submit("a", "x")
    await world.clock.settle()
    looked_up = sum(call.verb == "resolve" for call in world.faults.calls)
    world.faults.fail_next("send", error)
    (future,) = world.submit("a", "y")
    await world.outcome(future)
    assert sum(call.verb == "resolve" for call in world.faults.calls) == looked_up + 1


async def test_a_throttled_queue_is_not_looked_up_anew(world: World) -> None:
    world.faults.fail_next("send", Throttled("slow down"), times=3)
    (future,) = world.submit("a", "x")
    await world.outcome(future)
    assert sum(call.verb == "resolve" for call in world.faults.calls) == 1


async def test_a_queue_created_late_gets_its_jobs(world: World) -> None:
    (future,) = world.submit("late", "x")
    await world.clock.advance(20.0)
    assert not future.done()
    world.queues.create("late")
    assert await world.outcome(future) is Outcome.SENT
    assert world.queues.messages("late") == ["x"]


async def test_pauses_grow_to_their_maximum_and_one_outage_is_one_step(world: World) -> None:
    await world.destinations.resolve("a")
    world.faults.take_down("a", Unavailable("down"))
    world.submit("a", *[str(i) for i in range(40)])
    await world.clock.settle()
    assert world.sends("a") == 1, "the other flights find the lane paused"
    await world.clock.advance(0.1)
    assert world.sends("a") == 1 + 4, "all tried after it, all failed, and that was one step of backoff, not four"
    await world.clock.advance(0.1)
    assert world.sends("a") <= 1 + 8
    await world.clock.advance(30.0)
    before = world.sends("a")
    await world.clock.advance(20.0)
    assert 4 * 20 / BACKOFF_MAX_S <= world.sends("a") - before <= 4 * 2 * 20 / BACKOFF_MAX_S + 4


# --- isolation ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [Throttled("slow down"), UnknownQueue("a")])
async def test_a_failing_destination_never_delays_another(world: World, error: DyneinError) -> None:
    world.faults.take_down("a", error)
    world.submit("a", *[str(i) for i in range(100)])
    await world.clock.advance(10.0)
    before = world.clock.monotonic()
    futures = world.submit("b", *[str(i) for i in range(100)])
    await world.clock.settle()
    assert all(future.done() and future.result() is Outcome.SENT for future in futures)
    assert world.clock.monotonic() == before


async def test_a_destination_that_does_not_respond_never_delays_another(world: World) -> None:
    gate = world.faults.hold_before_next("send")
    (stuck,) = world.submit("a", "x")
    await gate.reached.wait()
    (other,) = world.submit("b", "y")
    await world.clock.settle()
    assert other.result() is Outcome.SENT
    assert not stuck.done()
    gate.open()
    assert await world.outcome(stuck) is Outcome.SENT


# --- FIFO -----------------------------------------------------------------------------------------------------------


async def test_fifo_order_holds_through_retries(world: World) -> None:
    world.faults.fail_next("send", Unavailable("down"), times=2)
    bodies = [f"{i:02}" for i in range(35)]
    futures = world.submit("c.fifo", *bodies[:5])
    await world.clock.settle()
    futures += world.submit("c.fifo", *bodies[5:])
    await world.clock.settle()
    assert world.sends("c.fifo") == 1, "one flight at a time"
    assert [await world.outcome(future) for future in futures] == [Outcome.SENT] * 35
    assert world.queues.messages("c.fifo") == bodies


# --- the lane's bound -----------------------------------------------------------------------------------------------


async def test_a_full_lane_turns_further_jobs_away_until_it_has_room() -> None:
    world = World(waiting_max=20, in_flight_max=1)
    world.faults.take_down("a", Throttled("slow down"))
    in_flight = world.submit("a", "0")
    await world.clock.settle()
    waiting = world.submit("a", *[str(i) for i in range(20)])
    assert not world.delivery.has_room("a")
    with pytest.raises(Overloaded):
        world.submit("a", "one too many")
    assert world.delivery.has_room("b"), "the bound is a lane's own"
    (other,) = world.submit("b", "x")
    assert await world.outcome(other) is Outcome.SENT
    world.faults.come_up()
    await world.clock.result_of(world.delivery.drained())
    assert all(future.result() is Outcome.SENT for future in in_flight + waiting)
    assert world.delivery.has_room("a")


async def test_lanes_are_bounded_idle_ones_are_forgotten_busy_ones_never() -> None:
    world = World(lanes_max=2)
    world.faults.take_down("a", Throttled("slow down"))
    (busy,) = world.submit("a", "x")
    (idle,) = world.submit("b", "x")
    await world.clock.settle()
    assert idle.done()
    gate = world.faults.hold_before_next("send")
    (third,) = world.submit("c.fifo", "x")
    await gate.reached.wait()
    assert not world.delivery.has_room("b"), "both lanes are busy"
    with pytest.raises(Overloaded):
        world.submit("b", "y")
    gate.open()
    assert await world.outcome(third) is Outcome.SENT
    assert world.delivery.has_room("b")
    (again,) = world.submit("b", "y")
    world.faults.come_up()
    assert await world.outcome(again) is Outcome.SENT
    assert await world.outcome(busy) is Outcome.SENT


async def test_a_failing_lane_that_is_idle_does_not_count_against_the_bound() -> None:
    world = World(lanes_max=1)
    world.faults.fail_next("send", Throttled("slow down"))
    owned = True
    lost = world.delivery.submit(world.due_job("a", may_send=lambda: owned))
    await world.clock.settle()
    owned = False
    assert await world.outcome(lost) is Outcome.ABANDONED
    (other,) = world.submit("b", "x")
    assert await world.outcome(other) is Outcome.SENT


# --- may_send -------------------------------------------------------------------------------------------------------


async def test_what_may_not_be_sent_is_abandoned_without_a_call(world: World) -> None:
    future = world.delivery.submit(world.due_job("a", may_send=lambda: False))
    assert await world.outcome(future) is Outcome.ABANDONED
    assert world.sends("a") == 0


async def test_the_lease_is_asked_again_before_each_try(world: World) -> None:
    owned = True
    world.faults.take_down("a", Unavailable("down"))
    mine = world.delivery.submit(world.due_job("a", "mine", may_send=lambda: owned))
    (other,) = world.submit("a", "other")
    await world.clock.settle()
    owned = False
    world.faults.come_up()
    assert await world.outcome(mine) is Outcome.ABANDONED
    assert await world.outcome(other) is Outcome.SENT
    assert world.queues.messages("a") == ["other"]


async def test_the_lease_is_asked_after_a_slow_look_up_not_before_it(world: World) -> None:
    owned = True
    gate = world.faults.hold_before_next("resolve")
    future = world.delivery.submit(world.due_job("a", may_send=lambda: owned))
    await gate.reached.wait()
    owned = False
    gate.open()
    assert await world.outcome(future) is Outcome.ABANDONED
    assert world.sends("a") == 0


# --- stop -----------------------------------------------------------------------------------------------------------


async def test_stop_ends_pauses_and_abandons_what_has_failed(world: World) -> None:
    await world.destinations.resolve("a")
    world.faults.take_down("a", Unavailable("down"))
    futures = world.submit("a", *[str(i) for i in range(60)])
    await world.clock.advance(3.0)
    sent = world.sends("a")
    assert sent > 4
    world.delivery.stop()
    await world.clock.settle()
    assert {future.result() for future in futures} == {Outcome.ABANDONED}, "no time had to pass"
    assert world.sends("a") == sent
    await asyncio.wait_for(world.delivery.drained(), 10)


async def test_stop_lets_what_is_in_flight_end_well(world: World) -> None:
    gate = world.faults.hold_before_next("send")
    (future,) = world.submit("a", "x")
    await gate.reached.wait()
    world.delivery.stop()
    draining = asyncio.ensure_future(world.delivery.drained())
    await world.clock.settle()
    assert not draining.done()
    gate.open()
    assert await world.outcome(future) is Outcome.SENT
    await draining


# --- the retry budget and the dead-letter queue ---------------------------------------------------------------------


async def test_past_the_budget_the_batch_is_dead_lettered_with_the_reason(world: World) -> None:
    world.queues.remove("a")
    futures = world.submit("a", "1", "2")
    await world.clock.advance(BUDGET_S - 1)
    assert not any(future.done() for future in futures)
    outcomes = [await world.outcome(future) for future in futures]
    assert outcomes == [Outcome.DEAD_LETTERED] * 2
    assert world.clock.monotonic() <= BUDGET_S + BACKOFF_MAX_S
    dead_letters = [read_dead_letter(message) for message in world.queues.peek(DLQ)]
    assert [decode_job(letter.body.encode()).body for letter in dead_letters] == ["1", "2"]
    assert all(letter.reason.startswith("UnknownQueue: queue 'a' does not exist") for letter in dead_letters)
    assert sum(call.verb == "send" for call in world.dead_faults.calls) == 1, "one call for the batch"
    assert world.tallied() == Counts(dead_lettered=2)


@pytest.mark.parametrize("queue", ["a", "c.fifo"])
async def test_past_the_budget_all_that_waits_is_dead_lettered_without_pauses(world: World, queue: str) -> None:
    world.faults.take_down(queue, Throttled("slow down"))
    (first,) = world.submit(queue, "first")
    assert await world.outcome(first) is Outcome.DEAD_LETTERED
    tries, began = world.sends(queue), world.clock.monotonic()
    futures = world.submit(queue, *map(str, range(500)))
    await world.clock.run_until(lambda: all(future.done() for future in futures))
    assert {future.result() for future in futures} == {Outcome.DEAD_LETTERED}
    assert world.clock.monotonic() - began <= BACKOFF_MAX_S, "and not a pause for each ten"
    assert world.sends(queue) - tries <= 4, "those that waited for the next try"
    assert all("slow down" in read_dead_letter(message).reason for message in world.queues.peek(DLQ))


async def test_a_destination_that_was_given_up_is_tried_after_each_pause(world: World) -> None:
    world.faults.take_down("a", Throttled("slow down"))
    (first,) = world.submit("a", "first")
    assert await world.outcome(first) is Outcome.DEAD_LETTERED
    world.faults.come_up()
    (meanwhile,) = world.submit("a", "meanwhile")
    assert await world.outcome(meanwhile) is Outcome.DEAD_LETTERED
    await world.clock.advance(BACKOFF_MAX_S)
    assert [await world.outcome(future) for future in world.submit("a", "1", "2")] == [Outcome.SENT] * 2


async def test_what_neither_queue_takes_is_tried_again_at_the_lane_s_pace(world: World) -> None:
    world.faults.take_down("a", Throttled("slow down"))
    (first,) = world.submit("a", "first")
    assert await world.outcome(first) is Outcome.DEAD_LETTERED
    world.dead_faults.go_down(Throttled("slow down"))
    (future,) = world.submit("a", "x")
    tries = len(world.dead_faults.calls)
    await world.clock.advance(60)
    assert not future.done()
    assert len(world.dead_faults.calls) - tries < 60 / (BACKOFF_MAX_S / 2) * 2 + 2
    world.faults.come_up()
    assert await world.outcome(future) is Outcome.SENT


async def test_one_success_ends_the_failure_and_its_budget(world: World) -> None:
    world.faults.take_down("a", Throttled("slow down"))
    (first,) = world.submit("a", "1")
    await world.clock.advance(BUDGET_S - 5)
    world.faults.come_up()
    assert await world.outcome(first) is Outcome.SENT
    world.faults.take_down("a", Throttled("slow down"))
    (second,) = world.submit("a", "2")
    await world.clock.advance(BUDGET_S - 5)
    assert not second.done()
    world.faults.come_up()
    assert await world.outcome(second) is Outcome.SENT
    assert world.queues.messages(DLQ) == []


async def test_a_batch_that_partly_goes_through_starts_the_budget_anew(world: World) -> None:
    world.faults.take_down("a", Throttled("slow down"))
    futures = world.submit("a", "1", "2")
    await world.clock.advance(BUDGET_S - 6)
    world.faults.come_up()
    world.faults.fail_entries_next("send", [1], code="InternalError")
    tries = world.sends("a")
    await world.clock.run_until(lambda: world.sends("a") > tries)
    world.faults.take_down("a", Throttled("slow down"))
    await world.clock.advance(BUDGET_S - 6)
    assert world.queues.messages(DLQ) == []
    world.faults.come_up()
    assert [await world.outcome(future) for future in futures] == [Outcome.SENT] * 2


async def test_a_failure_of_long_ago_does_not_cost_a_job_its_budget(world: World) -> None:
    """The lane was given up on, or its jobs were abandoned; then nothing was due for an hour."""
    world.faults.take_down("a", Throttled("slow down"))
    owned = True
    lost = world.delivery.submit(world.due_job("a", may_send=lambda: owned))
    await world.clock.advance(10)
    owned = False
    assert await world.outcome(lost) is Outcome.ABANDONED
    world.faults.come_up()
    await world.clock.advance(3600)
    world.faults.fail_next("send", Throttled("slow down"))
    (future,) = world.submit("a", "x")
    assert await world.outcome(future) is Outcome.SENT
    assert world.queues.messages(DLQ) == []
    assert world.clock.monotonic() < 3600 + 12, "and its first pause is a first pause"


async def test_while_the_dead_letter_queue_is_down_jobs_are_kept_until_it_is_up(world: World) -> None:
    world.queues.remove("a")
    world.dead_faults.go_down(Unavailable("down"))
    (future,) = world.submit("a", "x")
    await world.clock.advance(10 * BUDGET_S)
    assert not future.done()
    assert world.count("dynein_send_failures_total", code="DeadLetterUnavailable") > 1
    world.dead_faults.come_up()
    assert await world.outcome(future) is Outcome.DEAD_LETTERED
    assert len(world.queues.peek(DLQ)) == 1


async def test_a_dead_letter_refused_in_a_good_response_is_kept_too(world: World) -> None:
    world.faults.fail_entries_next("send", [0, 1], code="InvalidMessageContents", permanent=True)
    world.dead_faults.fail_entries_next("send", [1], code="InternalError")
    futures = world.submit("a", "1", "2")
    await world.clock.settle()
    assert [decode_job(message.body.encode()).body for message in world.queues.peek(DLQ)] == ["1"]
    assert not futures[1].done()
    outcomes = [await world.outcome(future) for future in futures]
    assert outcomes == [Outcome.DEAD_LETTERED, Outcome.SENT], "the fake takes it the second time"


async def test_a_queue_that_comes_back_while_dead_letters_cannot_be_sent_gets_its_jobs(world: World) -> None:
    world.queues.remove("a")
    world.dead_faults.go_down(Unavailable("down"))
    (future,) = world.submit("a", "x")
    await world.clock.advance(2 * BUDGET_S)
    world.queues.create("a")
    assert await world.outcome(future) is Outcome.SENT
    assert world.queues.messages(DLQ) == []


# --- own queues -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["dynein-inbound", "dynein-dead-letter"])
async def test_a_stored_job_for_one_of_dyneins_own_queues_is_dead_lettered_and_never_sent(
    world: World, name: str
) -> None:
    world.queues.create(name)
    for queue in (name, world.queues.url(name)):
        (forged,) = world.submit(queue, "x")
        assert await world.outcome(forged) is Outcome.DEAD_LETTERED
    assert world.queues.messages(name) == []
    assert all(dead.reason.startswith("OwnQueue: ") for dead in map(read_dead_letter, world.queues.peek(DLQ)))
