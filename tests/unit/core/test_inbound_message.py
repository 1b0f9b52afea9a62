from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynein.core.inbound_message import ENTRY_OVERHEAD_BYTES, PACK_OVERHEAD_BYTES, Entry, pack, unpack
from dynein.core.job import Job, encode_job
from dynein.core.job_token import JobRef, TokenKind, TokenSigner
from dynein.core.keys import DUE_MAX_MS, JOB_ID_BYTES, SHARDS_MAX, TriggerKey
from dynein.core.trigger import check

SIGNER = TokenSigner([b"0123456789abcdef"])
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


ENTRIES = st.builds(
    entry,
    key=KEYS,
    kind=st.sampled_from([TokenKind.SCHEDULED, TokenKind.PREPARED]),
    create_id=CREATE_IDS,
    body=TEXT,
)


@given(st.lists(ENTRIES, max_size=8))
def test_what_was_packed_comes_out_in_order_and_untouched(entries: list[Entry]) -> None:
    arrivals = unpack(pack(entries))
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
    assert len(pack(entries).encode()) <= PACK_OVERHEAD_BYTES + sum(e.size for e in entries)


def test_the_overhead_of_an_entry_has_room_for_token_and_create_id() -> None:
    (longest,) = [entry(TriggerKey(DUE_MAX_MS, b"\xff" * 12, 65535), TokenKind.PREPARED, "x" * 22, "")]
    assert longest.size - len(longest.record) == ENTRY_OVERHEAD_BYTES
    assert len(pack([longest])) - len(pack([])) <= longest.size


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("", "not an inbound message"),
        ("hello", "not an inbound message"),
        ("[]", "not an inbound message"),
        ('{"v":1}', "not an inbound message"),
        ('{"v":2,"jobs":[["t","c"]]}', "not an inbound message"),
        ('{"v":1,"jobs":[["t","c",{}]]}', "inbound format 1 is unknown"),
        ('{"v":3}', "not an inbound message"),
        ('{"v":2,"jobs":[["tooshort","c",2]]}\n{}', "no job token"),
        ('{"v":2,"jobs":[["' + "é" * 52 + '","c",2]]}\n{}', "no job token"),
        ('{"v":2,"jobs":[["' + "A" * 51 + '!","c",2]]}\n{}', "no job token"),
        ('{"v":2,"jobs":[["' + "A" * 52 + '","c",3]]}\n{}', "not as long as it says"),
        ('{"v":2,"jobs":[["' + "A" * 52 + '","c",1]]}\n{}', "not as long as it says"),
        ('{"v":2,"jobs":[["' + "A" * 52 + '","c",3],["' + "A" * 52 + '","c",-1]]}\n{}', "not as long as it says"),
    ],
)
def test_what_is_not_ours_is_a_value_error_with_the_reason(body: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        unpack(body)


@given(st.text())
def test_garbage_never_raises_anything_else(body: str) -> None:
    try:
        unpack(body)
    except ValueError:
        return
    raise AssertionError(f"{body!r} passed for an inbound message")


@pytest.mark.parametrize("deep", ["[" * 100_000, '{"v":2,"jobs":' + "[" * 100_000, '{"v":2,"x":' + '{"a":' * 100_000])
def test_a_body_nested_without_end_is_refused_like_any_other(deep: str) -> None:
    with pytest.raises(ValueError, match="not an inbound message"):
        unpack(deep)
