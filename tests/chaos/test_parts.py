"""What the chaos tests go by: the evidence of who had a job, what a fault excuses, and the accounts' findings."""

from __future__ import annotations

import json
import math
from base64 import b64encode
from typing import Any

import msgspec
import pytest

from dynein.core.delivered_message import TOKEN_ATTRIBUTE
from dynein.core.inbound_message import Entry, pack
from dynein.core.job import Job, encode_job
from dynein.core.job_token import JobRef, TokenKind, TokenSigner
from dynein.core.keys import Kind, TriggerKey, partition_key, sort_key
from tests.acceptance.fleet import SECRET
from tests.chaos import ledger
from tests.chaos.accounts import GONE_QUEUE, Account, Sighting, Standing
from tests.chaos.evidence import SEAL, Evidence
from tests.chaos.excuses import STARVED, Fault
from tests.chaos.ledger import Death, Window
from tests.chaos.settings import CALL_TIMEOUT_MS, LATE_MS, LEASE_MS, RECOVERY_MS
from tests.chaos.trails import Having, havings
from tests.chaos.wire import Wire

DUE_MS = 1_750_000_000_000
ASKED_MS = DUE_MS - 60_000
"""Stored long before it is due."""
SIGNER = TokenSigner([SECRET.encode()])
WINDOW_MS = ledger.WINDOW_S * 1000
START_MS = DUE_MS // WINDOW_MS * WINDOW_MS
OURS, OTHER = "dispatcher-0", "dispatcher-1"


def token(number: int = 1) -> str:
    return SIGNER.sign(JobRef(TokenKind.SCHEDULED, TriggerKey(DUE_MS, number.to_bytes(12, "big"), 0)))


SENT = Sighting(token(), DUE_MS + 10)
AGAIN = Sighting(token(), DUE_MS + 5_000)
MUCH_LATER = Sighting(token(), DUE_MS + LATE_MS + 1)


# --- the evidence -----------------------------------------------------------------------------------------------------


class Watched:
    """Processes whose calls are seen, at times that the test sets."""

    def __init__(self) -> None:
        self.now_ms = ASKED_MS
        self.evidence = Evidence(lambda: self.now_ms)

    def asks(self, process: str, operation: str, request: Any) -> Wire:
        wire = self.evidence.listener(process)
        body = json.dumps(request).encode()
        head = f"POST / HTTP/1.1\r\nX-Amz-Target: Some.{operation}\r\nContent-Length: {len(body)}\r\n\r\n"
        wire.requested(head.encode() + body[:5])
        wire.requested(body[5:])
        return wire

    def calls(self, process: str, operation: str, request: Any, answer: Any = None) -> None:
        wire = self.asks(process, operation, request)
        body = json.dumps(answer or {}).encode()
        wire.answered(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        wire.passed()

    def sends(self, process: str, at_ms: int, given: str) -> None:
        self.now_ms = at_ms
        self.calls(process, "SendMessageBatch", _send(given))

    def removes(self, process: str, at_ms: int, given: str) -> None:
        self.now_ms = at_ms
        self.calls(process, "BatchWriteItem", {"RequestItems": {"dynein": [{"DeleteRequest": {"Key": _key(given)}}]}})

    def receives(self, process: str, at_ms: int, given: str, receipt: str) -> None:
        self.now_ms = at_ms
        message = {"MessageId": "1", "ReceiptHandle": receipt, "Body": _packed(given)}
        self.calls(process, "ReceiveMessage", {}, {"Messages": [message]})

    def deletes(self, process: str, at_ms: int, receipt: str) -> None:
        self.now_ms = at_ms
        self.calls(process, "DeleteMessageBatch", {"Entries": [{"Id": "0", "ReceiptHandle": receipt}]})

    def cancels(self, process: str, at_ms: int, given: str) -> None:
        self.now_ms = at_ms
        key = SIGNER.verify(given).key
        raw = b64encode(sort_key(key, Kind.TOMBSTONE)).decode("ascii")
        put = {"Put": {"Item": {**_key(given), "sk": {"B": raw}}}}
        self.calls(process, "TransactWriteItems", {"TransactItems": [put]})

    def posts(self, process: str, at_ms: int, posting_id: str = "p", *, answered: bool = True, **counts: int) -> None:
        self.now_ms = at_ms
        raw = b64encode(START_MS.to_bytes(6, "big")).decode("ascii")
        values = {f":{flow}": {"N": str(jobs)} for flow, jobs in counts.items()}
        key = {"pk": {"S": "ledger#30000#1"}, "sk": {"B": raw}}
        updates = [{"Update": {"Key": key, "ExpressionAttributeValues": values}}]
        request = {"TransactItems": updates, "ClientRequestToken": posting_id}
        (self.calls if answered else self.asks)(process, "TransactWriteItems", request)

    def renews(self, process: str, at_ms: int, shard: int) -> None:
        self.now_ms = at_ms
        self.calls(process, "UpdateItem", {"Key": {"pk": {"S": f"shard#{shard}"}}})


def _send(given: str) -> Any:
    attributes = {TOKEN_ATTRIBUTE: {"DataType": "String", "StringValue": given}}
    return {"QueueUrl": "http://sqs/0/work", "Entries": [{"MessageBody": "1", "MessageAttributes": attributes}]}


def _key(given: str) -> Any:
    key = SIGNER.verify(given).key
    raw = b64encode(sort_key(key, Kind.TRIGGER)).decode("ascii")
    return {"pk": {"S": partition_key(key.due_at_ms // 5_000, key.shard)}, "sk": {"B": raw}}


def _packed(given: str) -> str:
    return pack([Entry(given, "", msgspec.Raw(encode_job(Job("work", "1"))))], SEAL)


def test_a_job_is_had_by_whoever_was_given_it_until_it_is_known_to_be_done() -> None:
    watched = Watched()
    watched.now_ms = ASKED_MS + 5
    submission = {"QueueUrl": "http://sqs/0/dynein-inbound", "Entries": [{"MessageBody": _packed(token())}]}
    watched.calls("api-0", "SendMessageBatch", submission)
    watched.receives("ingester-1", ASKED_MS + 50, token(), "r")
    watched.deletes("ingester-1", ASKED_MS + 90, "r")
    watched.sends(OURS, DUE_MS + 2, token())
    watched.removes(OURS, DUE_MS + 30, token())
    assert havings(watched.evidence.of(token()), ASKED_MS, ASKED_MS + 10) == [
        Having("api-0", ASKED_MS, ASKED_MS + 10),
        Having("ingester-1", ASKED_MS + 50, ASKED_MS + 90),
        Having(OURS, DUE_MS, DUE_MS + 30),
    ]


def test_a_dispatcher_whose_clock_is_ahead_has_the_job_from_when_it_sends_it() -> None:
    watched = Watched()
    watched.sends(OURS, DUE_MS - 500, token())
    assert havings(watched.evidence.of(token()), ASKED_MS, ASKED_MS + 10) == [Having(OURS, DUE_MS - 500, math.inf)]


def test_what_was_not_answered_is_not_known_to_be_done() -> None:
    watched = Watched()
    watched.receives("ingester-1", ASKED_MS + 50, token(), "r")
    watched.asks("ingester-1", "DeleteMessageBatch", {"Entries": [{"Id": "0", "ReceiptHandle": "r"}]})
    (has,) = havings(watched.evidence.of(token()), ASKED_MS, ASKED_MS + 10)
    assert has == Having("ingester-1", ASKED_MS + 50, math.inf)


def test_an_engine_that_is_slow_is_noted_once_for_all_calls_that_wait_at_the_same_time() -> None:
    watched = Watched()
    for asked_ms, took_ms in ((0, 999), (5_000, 1_000), (5_500, 2_000), (20_000, 1_000)):
        watched.now_ms = asked_ms
        wire = watched.asks(OURS, "Query", {})
        watched.now_ms = asked_ms + took_ms
        wire.answered(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
    assert watched.evidence.engine_slow == [(5_000, 7_500), (20_000, 21_000)]


def test_a_shard_is_owned_for_as_long_as_the_lease_is_renewed_and_as_a_lease_lasts() -> None:
    watched = Watched()
    for at_ms in range(0, 3 * LEASE_MS, LEASE_MS // 2):
        watched.renews(OURS, at_ms, shard=3)
    last_ms = at_ms
    assert watched.evidence.owners(3, last_ms + LEASE_MS, last_ms + LEASE_MS) == {OURS}
    assert watched.evidence.owners(3, last_ms + LEASE_MS + 1, last_ms + 2 * LEASE_MS) == set()
    assert watched.evidence.owners(4, 0, last_ms) == set()


# --- the accounts -----------------------------------------------------------------------------------------------------


def account(
    standing: Standing = Standing.ACCEPTED,
    *deliveries: Sighting,
    policy: str = "SCHEDULED",
    queue: str = "work",
    dead_letters: tuple[Sighting, ...] = (),
    stored: tuple[Sighting, ...] = (),
    cancelled: bool = False,
) -> Account:
    return Account(
        "1", queue, policy, ASKED_MS, ASKED_MS + 10,
        standing=standing, token=token() if standing is Standing.ACCEPTED else "", cancelled=cancelled,
        deliveries=list(deliveries), dead_letters=list(dead_letters), stored=list(stored),
    )  # fmt: skip


def sent_by(process: str, account: Account) -> Evidence:
    """Each as it arrived, and removed after the last."""
    watched = Watched()
    for given, at_ms in account.deliveries + account.dead_letters:
        watched.sends(process, at_ms, given)
        watched.removes(process, at_ms + 10, given)
    return watched.evidence


def wrong(account: Account, *faults: Fault, evidence: Evidence | None = None) -> list[str]:
    return account.wrong(list(faults), evidence or sent_by(OURS, account))


@pytest.mark.parametrize(
    "fine",
    [
        account(Standing.ACCEPTED, SENT),
        account(stored=(SENT,)),
        account(cancelled=True),
        account(queue=GONE_QUEUE, dead_letters=(SENT,)),
        account(Standing.REFUSED),
        account(Standing.DOUBTFUL),
        account(Standing.DOUBTFUL, SENT),
    ],
)
def test_a_job_is_in_one_place_as_promised(fine: Account) -> None:
    assert wrong(fine) == []


@pytest.mark.parametrize(
    ("broken", "finding"),
    [
        (account(), "LOST"),
        (account(Standing.ACCEPTED, SENT, cancelled=True), "CANCELLED"),
        (account(stored=(SENT,), cancelled=True), "CANCELLED"),
        (account(Standing.REFUSED, SENT), "REFUSED"),
        (account(Standing.ASKED), "its client"),
        (account(Standing.ACCEPTED, SENT, AGAIN), "DUPLICATE"),
        (account(Standing.ACCEPTED, SENT, stored=(SENT,)), "DUPLICATE"),
        (account(Standing.DOUBTFUL, SENT, AGAIN), "DUPLICATE"),
        (account(Standing.DOUBTFUL, SENT, Sighting(token(2), DUE_MS + 10)), "made twice"),
        (account(Standing.ACCEPTED, Sighting(token(2), DUE_MS + 10)), "there under a foreign token"),
        (account(Standing.ACCEPTED, Sighting(token(), DUE_MS - 1)), "EARLY"),
        (account(Standing.ACCEPTED, MUCH_LATER), "LATE"),
        (account(dead_letters=(SENT,)), "wrongly dead-lettered"),
        (account(Standing.ACCEPTED, SENT, queue=GONE_QUEUE), "wrongly dead-lettered"),
    ],
)
def test_anything_else_is_wrong(broken: Account, finding: str) -> None:
    assert any(sentence.startswith(finding) for sentence in wrong(broken))


def test_what_nobody_sent_and_yet_came_is_wrong() -> None:
    assert wrong(account(Standing.ACCEPTED, SENT), evidence=Evidence())[0].startswith("SENT by none")


# --- duplicates -------------------------------------------------------------------------------------------------------

TWICE = account(Standing.ACCEPTED, SENT, AGAIN)


def fault(process: str | None, at_ms: int, until_ms: int = 0, **more: Any) -> Fault:
    return Fault("something", None if process is None else frozenset({process}), at_ms, until_ms or at_ms, **more)


def sent_and_sent_again(*, removed: bool = True) -> Evidence:
    """By ours, which then removes the trigger, or does not; and by the other."""
    watched = Watched()
    watched.sends(OURS, SENT.at_ms, token())
    if removed:
        watched.removes(OURS, SENT.at_ms + 20, token())
    watched.sends(OTHER, AGAIN.at_ms, token())
    return watched.evidence


@pytest.mark.parametrize(
    ("happened", "excused"),
    [
        (fault(OURS, DUE_MS + 5), True),
        (fault(None, DUE_MS + 5), True),
        (fault(OURS, DUE_MS + 25), True),
        (fault(OURS, DUE_MS - 5), False),
        (fault(OURS, DUE_MS + 31), False),
        (fault(OURS, DUE_MS + 5, repeats=False), False),
        (fault("dispatcher-2", DUE_MS + 5), False),
        (fault("ingester-0", DUE_MS + 5), False),
        (fault("api-0", DUE_MS + 5), False),
    ],
)
def test_a_duplicate_is_excused_by_what_happened_to_a_process_while_it_had_the_job(
    happened: Fault, *, excused: bool
) -> None:
    assert (wrong(TWICE, happened, evidence=sent_and_sent_again()) == []) == excused


@pytest.mark.parametrize(("removed", "excused"), [(True, False), (False, True)])
def test_until_the_trigger_is_removed_a_dispatcher_has_the_job(*, removed: bool, excused: bool) -> None:
    evidence = sent_and_sent_again(removed=removed)
    assert (wrong(TWICE, fault(OURS, DUE_MS + 2_000), evidence=evidence) == []) == excused


def test_what_came_after_the_second_send_is_no_excuse_for_it() -> None:
    assert wrong(TWICE, fault(None, AGAIN.at_ms + 100), evidence=sent_and_sent_again(removed=False)) != []


def test_a_process_that_is_frozen_repeats_only_what_it_was_doing() -> None:
    frozen = fault(OURS, DUE_MS - 1_000, DUE_MS + 4_000, strikes_ms=50)
    assert wrong(TWICE, frozen, evidence=sent_and_sent_again()) != []
    assert wrong(TWICE, frozen._replace(from_ms=DUE_MS - 20), evidence=sent_and_sent_again()) == []


@pytest.mark.parametrize(("waited_ms", "excused"), [(CALL_TIMEOUT_MS // 2, True), (CALL_TIMEOUT_MS // 2 - 1, False)])
def test_a_call_that_had_its_time_and_no_answer_may_be_made_again(waited_ms: int, *, excused: bool) -> None:
    watched = Watched()
    watched.now_ms = SENT.at_ms
    unanswered = watched.asks(OURS, "SendMessageBatch", _send(token()))
    watched.now_ms += waited_ms
    unanswered.hung_up()
    watched.sends(OURS, SENT.at_ms + waited_ms, token())
    twice = account(Standing.ACCEPTED, SENT, Sighting(token(), SENT.at_ms + waited_ms))
    assert (wrong(twice, evidence=watched.evidence) == []) == excused


@pytest.mark.parametrize(("again", "excused"), [("ingester-1", True), (None, False)])
def test_to_be_starved_is_an_excuse_if_the_inbound_message_was_given_to_another_meanwhile(
    again: str | None, *, excused: bool
) -> None:
    watched = Watched()
    watched.receives("ingester-0", ASKED_MS + 50, token(), "r")
    if again:
        watched.receives(again, DUE_MS - 50, token(), "r again")
    watched.sends("ingester-0", SENT.at_ms, token())
    watched.sends(again or "ingester-0", AGAIN.at_ms, token())
    starved = Fault(STARVED, frozenset({"ingester-0"}), ASKED_MS, DUE_MS, repeats=False, lost=False)
    assert (wrong(TWICE, starved, evidence=watched.evidence) == []) == excused


def test_a_direct_send_is_never_repeated() -> None:
    again = account(Standing.ACCEPTED, SENT, AGAIN, policy="IMMEDIATE")
    assert wrong(again, fault(None, DUE_MS + 5)) != []


# --- lateness and clocks ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("happened", "excused"),
    [
        (fault(OURS, DUE_MS - 1_000, DUE_MS), True),
        (fault(None, DUE_MS - 1_000, DUE_MS), True),
        (fault("ingester-0", DUE_MS - 1_000, DUE_MS), False),  # it never had the job
        (fault(OURS, DUE_MS - RECOVERY_MS["dispatcher"] - 1_000, DUE_MS - RECOVERY_MS["dispatcher"]), False),
        (fault(OURS, MUCH_LATER.at_ms, MUCH_LATER.at_ms + 1), False),
        (fault(OURS, DUE_MS - 1_000, DUE_MS, lost=False), False),
        (fault(OURS, DUE_MS - 1_000, DUE_MS + 1_000, lost=False), True),
    ],
)
def test_a_job_may_be_late_until_what_kept_it_is_overcome(happened: Fault, *, excused: bool) -> None:
    assert (wrong(account(Standing.ACCEPTED, MUCH_LATER), happened) == []) == excused


def test_a_job_that_comes_after_the_recovery_is_late() -> None:
    overcome_ms = DUE_MS + RECOVERY_MS["dispatcher"]
    for arrived_ms, late in ((overcome_ms + LATE_MS, False), (overcome_ms + LATE_MS + 1, True)):
        job = account(Standing.ACCEPTED, Sighting(token(), arrived_ms))
        assert (wrong(job, fault(OURS, DUE_MS - 1_000, DUE_MS)) != []) == late


def test_who_owns_the_shard_may_keep_a_job_that_it_never_sends() -> None:
    watched = Watched()
    watched.renews(OTHER, DUE_MS - 1_000, shard=0)
    watched.sends(OURS, MUCH_LATER.at_ms, token())
    late = account(Standing.ACCEPTED, MUCH_LATER)
    assert wrong(late, fault(OTHER, DUE_MS - 500, DUE_MS), evidence=watched.evidence) == []
    assert wrong(late, fault("dispatcher-2", DUE_MS - 500, DUE_MS), evidence=watched.evidence) != []


@pytest.mark.parametrize(
    ("process", "ahead_ms", "arrived_ms", "excused"),
    [
        (OURS, 2_000, DUE_MS - 2_000, True),
        (OURS, 2_000, DUE_MS - 2_001, False),
        (OTHER, 2_000, DUE_MS - 1, False),
        (OURS, -2_000, DUE_MS - 1, False),
        (OURS, -2_000, DUE_MS + LATE_MS + 2_000, True),
        (OURS, 2_000, DUE_MS + LATE_MS + 1, False),
    ],
)
def test_a_wrong_clock_is_an_excuse_for_as_much_as_it_is_wrong(
    process: str, ahead_ms: int, arrived_ms: int, *, excused: bool
) -> None:
    clock = fault(process, ASKED_MS, repeats=False, lost=False, ahead_ms=ahead_ms)
    assert (wrong(account(Standing.ACCEPTED, Sighting(token(), arrived_ms)), clock) == []) == excused


# --- the ledger -------------------------------------------------------------------------------------------------------


def test_a_process_that_is_killed_takes_with_it_what_it_did_since_it_posted() -> None:
    watched = Watched()
    watched.sends(OURS, DUE_MS + 10, token(1))
    watched.posts(OURS, DUE_MS + 20)
    watched.sends(OURS, DUE_MS + 30, token(2))
    watched.sends(OTHER, DUE_MS + 35, token(3))
    watched.cancels("api-0", DUE_MS - 9_000, token(4))
    lost = ledger.lost_counts(watched.evidence, [Death(OURS, DUE_MS + 40), Death("api-0", DUE_MS + 40)])
    assert lost == {START_MS: 2}


def test_a_send_without_a_response_was_not_counted_and_what_was_posted_is_not_lost() -> None:
    watched = Watched()
    watched.asks(OURS, "SendMessageBatch", _send(token()))
    watched.sends(OURS, DUE_MS + 10, token(2))
    watched.posts(OURS, DUE_MS + 20)
    assert ledger.lost_counts(watched.evidence, [Death(OURS, DUE_MS + 40)]) == {}


def test_a_posting_that_the_engine_counts_again_is_known_by_its_id() -> None:
    watched = Watched()
    watched.posts(OURS, DUE_MS, "one", accepted=5, delivered=2)
    watched.posts(OURS, DUE_MS, "one", accepted=5, delivered=2)
    watched.posts(OURS, DUE_MS, "two", delivered=4)
    watched.posts(OURS, DUE_MS, "three", accepted=7, answered=False)
    assert ledger.counted_again(watched.evidence.postings) == ({START_MS: 3}, {START_MS: 7})


@pytest.mark.parametrize(("missing", "explained"), [(0, True), (5, True), (6, False), (-5, True)])
def test_more_must_not_be_missing_in_a_window_than_the_dead_had_counted(missing: int, *, explained: bool) -> None:
    watched = Watched()
    for _ in range(2):
        watched.posts("api-0", DUE_MS, accepted=3)
    watched.sends(OURS, DUE_MS + 10, token(1))
    watched.sends(OURS, DUE_MS + 10, token(2))
    windows = [Window(START_MS, missing), Window(START_MS + WINDOW_MS, 0)]
    assert (ledger.unexplained(windows, watched.evidence, [Death(OURS, DUE_MS + 40)]) == []) == explained


def test_a_window_is_closed_when_its_grace_is_over() -> None:
    assert ledger.closed_at_ms(START_MS) == ledger.closed_at_ms(START_MS + WINDOW_MS - 1)
    assert ledger.closed_at_ms(START_MS + WINDOW_MS) == START_MS + 2 * WINDOW_MS + ledger.GRACE_S * 1000
