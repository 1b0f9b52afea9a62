from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from dynein.api.inbound_sender import plan_calls
from dynein.core.inbound_message import PACK_OVERHEAD_BYTES
from dynein.core.queues import ENTRIES_MAX

PACK_MAX = 1_000
CALL_MAX = 4_000


@given(st.lists(st.integers(1, CALL_MAX - PACK_OVERHEAD_BYTES), min_size=1, max_size=200))
def test_calls_keep_every_limit_and_every_entry_in_order(sizes: list[int]) -> None:
    calls = plan_calls(sizes, pack_bytes_max=PACK_MAX, call_bytes_max=CALL_MAX)
    assert [i for call in calls for message in call for i in message] == list(range(len(sizes)))
    for call in calls:
        assert 1 <= len(call) <= ENTRIES_MAX
        message_bytes = [PACK_OVERHEAD_BYTES + sum(sizes[i] for i in message) for message in call]
        assert sum(message_bytes) <= CALL_MAX
        for size, message in zip(message_bytes, call, strict=True):
            assert size <= PACK_MAX or len(message) == 1


@given(st.lists(st.integers(1, PACK_MAX), min_size=1, max_size=300))
def test_a_new_message_or_call_is_begun_only_when_the_last_is_full(sizes: list[int]) -> None:
    calls = plan_calls(sizes, pack_bytes_max=PACK_MAX, call_bytes_max=CALL_MAX)

    def message_bytes(message: list[int]) -> int:
        return PACK_OVERHEAD_BYTES + sum(sizes[i] for i in message)

    for call, following in itertools.pairwise(calls):
        call_bytes = sum(map(message_bytes, call))
        assert len(call) == ENTRIES_MAX or call_bytes + PACK_OVERHEAD_BYTES + sizes[following[0][0]] > CALL_MAX
    for call in calls:
        for i, (message, following_message) in enumerate(itertools.pairwise(call)):
            with_next = sizes[following_message[0]]
            call_bytes = sum(map(message_bytes, call[: i + 1]))
            assert message_bytes(message) + with_next > PACK_MAX or call_bytes + with_next > CALL_MAX
