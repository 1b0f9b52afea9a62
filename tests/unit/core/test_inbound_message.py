from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from dynein.core.inbound_message import ENTRY_OVERHEAD_BYTES, PACK_OVERHEAD_BYTES, Entry, pack, unpack
from dynein.core.job import Job, encode_job
from dynein.core.job_token import JobRef, TokenKind, TokenSigner
from dynein.core.keys import DUE_MAX_MS, JOB_ID_BYTES, SHARDS_MAX, TriggerKey
from dynein.core.seal import Seal
from dynein.core.trigger import check

SECRET = b"0123456789abcdef"
SIGNER, SEAL = TokenSigner([SECRET]), Seal([SECRET])
KEYS = st.builds(
    TriggerKey,
    due_at_ms=st.integers(0, DUE_MAX_MS),
    job_id=st.binary(min_size=JOB_ID_BYTES, max_size=JOB_ID_BYTES),
    shard=st.integers(0, SHARDS_MAX - 1),
)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
# 22 characters is what a create id of 128 random bits takes in base64url.
CREATE_IDS = st.text("abcXYZ019-_", min_size=1, max_size=22)


def entry(key: TriggerKey, kind: TokenKind, create_id: str, body: str) -> Entry:
    token = SIGNER.sign(JobRef(kind, key))
    return Entry(token, create_id, encode_job(Job("demo", body)))


GOOD = entry(TriggerKey(1_800_000_000_000, b"\1" * 12, 3), TokenKind.SCHEDULED, "c", "good")
ENTRIES = st.builds(
    entry,
    key=KEYS,
    kind=st.sampled_from([TokenKind.SCHEDULED, TokenKind.PREPARED]),
    create_id=CREATE_IDS,
    body=TEXT,
)


@given(st.lists(ENTRIES, max_size=8))
def test_what_was_packed_comes_out_in_order_and_untouched(entries: list[Entry]) -> None:
    arrivals = unpack(pack(entries, SEAL), SEAL).arrivals
    assert [a.trigger.token for a in arrivals] == [e.token for e in entries]
    assert [a.trigger.record for a in arrivals] == [e.record for e in entries]
    assert [a.create_id for a in arrivals] == [e.create_id for e in entries]
    for arrival, packed in zip(arrivals, entries, strict=True):
        kind, key = SIGNER.verify(packed.token)
        assert arrival.key == key
        assert arrival.prepared == (kind is TokenKind.PREPARED)
        check(arrival.trigger)


@given(st.lists(ENTRIES, max_size=8))
def test_sizes_are_upper_bounds(entries: list[Entry]) -> None:
    assert len(pack(entries, SEAL).encode()) <= PACK_OVERHEAD_BYTES + sum(e.size for e in entries)


def test_the_overhead_of_an_entry_has_room_for_token_and_create_id() -> None:
    (longest,) = [entry(TriggerKey(DUE_MAX_MS, b"\xff" * 12, 65535), TokenKind.PREPARED, "x" * 22, "")]
    assert longest.size - len(longest.record) == ENTRY_OVERHEAD_BYTES
    assert len(pack([longest], SEAL)) - len(pack([], SEAL)) <= longest.size


# --- what is not this deployment's ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("", "not an inbound message"),
        ("hello", "not an inbound message"),
        ("[]", "not an inbound message"),
        ('{"v":3}', "not an inbound message"),
        ('{"v":3,"mac":7,"jobs":[],"bytes":[]}', "not an inbound message"),
        ('{"v":2,"mac":"x","jobs":[]}', "inbound format 2 is unknown to this version, which reads format 3"),
        ('{"v":4,"mac":"x","jobs":[]}', "inbound format 4 is unknown"),
        ('{"v":3,"jobs":[]}', "signature is not this deployment's"),
        ('{"v":3,"mac":"é","jobs":[],"bytes":[]}', "signature is not this deployment's"),
    ],
)
def test_what_is_not_ours_is_a_value_error_with_the_reason(body: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        unpack(body, SEAL)


@given(st.text())
def test_garbage_never_raises_anything_else(body: str) -> None:
    try:
        unpack(body, SEAL)
    except ValueError:
        return
    raise AssertionError(f"{body!r} passed for an inbound message")


@pytest.mark.parametrize(
    "deep", ["[" * 100_000, '{"v":3,"mac":"","jobs":' + "[" * 100_000, '{"v":3,"x":' + '{"a":' * 100_000]
)
def test_a_body_nested_without_end_is_refused_like_any_other(deep: str) -> None:
    with pytest.raises(ValueError, match="not an inbound message"):
        unpack(deep, SEAL)


def test_nothing_is_decoded_before_the_signature_is_verified() -> None:
    """So that nobody else can reach the decoder of jobs: these entries would each be reported otherwise."""
    for entries in ("7", "[[]]", '[["t","c"]]', '[["tooshort","c",{}]]'):
        with pytest.raises(ValueError, match="signature is not this deployment's"):
            unpack(f'{{"v":3,"mac":"{"A" * 24}","jobs":{entries},"bytes":[2]}}\n{{}}', SEAL)


@given(st.lists(ENTRIES, min_size=1, max_size=3), st.data())
def test_a_body_changed_anywhere_is_refused_or_means_the_same(entries: list[Entry], data: st.DataObject) -> None:
    body = pack(entries, SEAL)
    at = data.draw(st.integers(0, len(body) - 1))
    changed = body[:at] + data.draw(st.text(max_size=2)) + body[at + data.draw(st.integers(0, 2)) :]
    try:
        unpacked = unpack(changed, SEAL)
    except ValueError:
        return
    assert unpacked == unpack(body, SEAL), "white space around what is signed"


@given(st.lists(ENTRIES, min_size=1, max_size=3), st.data())
def test_a_body_that_was_cut_is_refused(entries: list[Entry], data: st.DataObject) -> None:
    body = pack(entries, SEAL)
    with pytest.raises(ValueError, match=r"not an inbound message|signature is not"):
        unpack(body[: data.draw(st.integers(0, len(body) - 1))], SEAL)


@given(ENTRIES, ENTRIES)
def test_entries_cannot_be_taken_from_one_message_to_another(one: Entry, other: Entry) -> None:
    assume(one != other)
    (mine, record), (others, records) = (opened(pack(entries, SEAL)) for entries in ([one], [one, other]))
    swaps: list[tuple[object, object, str]] = [
        (others["jobs"], others["bytes"], records),
        (others["jobs"][1:], others["bytes"][1:], other.record.decode()),
        (others["jobs"][1:], mine["bytes"], record),
        (mine["jobs"], others["bytes"][1:], other.record.decode()),
        ([], [], ""),
    ]
    for jobs, sizes, text in swaps:
        if (jobs, sizes, text) == (mine["jobs"], mine["bytes"], record):
            continue  # the two differ in something else
        head = msgspec.json.encode({**mine, "jobs": jobs, "bytes": sizes}).decode()
        with pytest.raises(ValueError, match="signature is not this deployment's"):
            unpack(f"{head}\n{text}", SEAL)


def opened(body: str) -> tuple[dict[str, Any], str]:
    """Its first line, decoded, and the rest."""
    line, _, records = body.partition("\n")
    return msgspec.json.decode(line), records


def test_another_deployments_message_is_refused_and_one_with_a_rotated_secret_is_not() -> None:
    body = pack([GOOD], SEAL)
    for secrets in ([b"another secret of it"], [b"another secret of it", b"and one more of them"]):
        with pytest.raises(ValueError, match="DYNEIN_TOKEN_SECRETS"):
            unpack(body, Seal(secrets))
    assert unpack(body, Seal([b"a secret that is new", SECRET])) == unpack(body, SEAL)


# --- what is ours, and cannot be read -------------------------------------------------------------------------------


def signed(entries: str, sizes: str, records: str) -> str:
    """The wire format, spelled out."""
    signature = SEAL.sign("inbound message, format 3", entries.encode(), sizes.encode(), records.encode())
    return f'{{"v":3,"mac":"{signature}","jobs":{entries},"bytes":{sizes}}}\n{records}'


BAD_ENTRIES = (
    ("7", "Expected `array`"),
    ('["t"]', "length"),
    ('["tooshort","c"]', "52 characters"),
    ('["' + "é" * 52 + '","c"]', "not a job token"),
    ('["' + "A" * 51 + '!","c"]', "not a job token"),
)
RECORD = GOOD.record.decode()


@pytest.mark.parametrize(("bad", "reason"), BAD_ENTRIES)
def test_one_bad_entry_does_not_take_the_others_with_it(bad: str, reason: str) -> None:
    good, size = f'["{GOOD.token}","c"]', len(RECORD)
    assert signed(f"[{good}]", f"[{size}]", RECORD) == pack([GOOD], SEAL)
    message = signed(f"[{good},{bad},{good}]", f"[{size},3,{size}]", f"{RECORD}bad{RECORD}")
    arrivals, (unreadable,) = unpack(message, SEAL)
    assert arrivals == unpack(pack([GOOD, GOOD], SEAL), SEAL).arrivals
    assert reason in unreadable.reason
    # It is a message of its own, signed, that a version which can read it would take.
    assert unreadable.body == signed(f"[{bad}]", "[3]", "bad")
    assert unpack(unreadable.body, SEAL) == ([], [unreadable])


def test_several_bad_entries_are_several_messages() -> None:
    bad = [entry for entry, _ in BAD_ENTRIES]
    unpacked = unpack(signed(f"[{','.join(bad)}]", "[1,1,1,1,1]", "12345"), SEAL)
    assert unpacked.arrivals == []
    each = [signed(f"[{entry}]", "[1]", record) for entry, record in zip(bad, "12345", strict=True)]
    assert [unreadable.body for unreadable in unpacked.unreadable] == each


@pytest.mark.parametrize(
    ("entries", "sizes"),
    [('{"a":1}', "[2]"), ("[]", "[2]"), ('[["t","c"]]', "{}"), ('[["t","c"]]', "[3]"), ('[["t","c"]]', "[1]")]
    + [('[["t","c"],["t","c"]]', sizes) for sizes in ("[2]", "[3,-1]", "[2,0]", '["2","0"]')],
)
def test_what_is_signed_and_no_list_of_entries_is_refused(entries: str, sizes: str) -> None:
    with pytest.raises(ValueError, match="not an inbound message"):
        unpack(signed(entries, sizes, "{}"), SEAL)
