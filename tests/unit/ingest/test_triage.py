from hypothesis import given
from hypothesis import strategies as st

from dynein.core.inbound_message import Arrival
from dynein.core.keys import TriggerKey
from dynein.core.trigger import Trigger
from dynein.ingest.triage import HOLD_MARK_EXTRA_MS, HoldWindows, KnownMarks, hold_mark_ms, may_be_read, triage

NOW_MS = 1_750_000_000_000
TIMES = st.integers(min_value=0, max_value=2 * NOW_MS)
WINDOWS = st.integers(min_value=1, max_value=600_000)


def arrival(due_at_ms: int, record: bytes = b"{}") -> Arrival:
    return Arrival(Trigger(TriggerKey(due_at_ms, bytes(12), 0), "token", record), "create", prepared=False)


def test_the_window_ends_after_its_last_millisecond() -> None:
    at_end, after = arrival(NOW_MS + 6000), arrival(NOW_MS + 6001)
    assert triage([after, at_end], NOW_MS, HoldWindows(6000, 1500)) == ([at_end], [after])


@given(dues=st.lists(TIMES), now_ms=TIMES, window_ms=WINDOWS)
def test_every_arrival_goes_one_way_in_order_and_what_is_due_is_held(
    dues: list[int], now_ms: int, window_ms: int
) -> None:
    near, far = triage([arrival(due) for due in dues], now_ms, HoldWindows(window_ms, window_ms // 4))
    held = [a.key.due_at_ms for a in near]
    stored = [a.key.due_at_ms for a in far]
    assert held == [due for due in dues if due <= now_ms + window_ms]
    assert stored == [due for due in dues if due > now_ms + window_ms]


def test_of_a_fifo_queue_only_what_no_dispatcher_would_read_in_time_is_held() -> None:
    windows = HoldWindows(6000, 1500)
    dues = (0, 1500, 1501, 6000, 6001)
    fifo = [arrival(NOW_MS + due, b'{"q":"orders.fifo"}\nx') for due in dues]
    standard = [arrival(NOW_MS + due, b'{"q":"orders"}\nx') for due in dues]
    assert triage(fifo, NOW_MS, windows) == (fifo[:2], fifo[2:])
    assert triage(standard, NOW_MS, windows) == (standard[:4], standard[4:])


@given(due_in_ms=st.integers(min_value=-NOW_MS, max_value=0) | WINDOWS, window_ms=WINDOWS)
def test_a_hold_mark_covers_the_job_and_a_second_of_others(due_in_ms: int, window_ms: int) -> None:
    mark_ms = hold_mark_ms(NOW_MS + due_in_ms, NOW_MS, window_ms)
    assert mark_ms >= NOW_MS + due_in_ms
    assert mark_ms >= NOW_MS + window_ms + HOLD_MARK_EXTRA_MS


@given(
    read_mark_ms=TIMES,
    later_mark_ms=st.integers(min_value=0, max_value=10_000),
    elapsed_s=st.floats(min_value=0, max_value=1e5),
    due_in_ms=st.integers(min_value=0, max_value=10**9),
)
def test_a_mark_that_kept_pace_is_never_overlooked(
    read_mark_ms: int, later_mark_ms: int, elapsed_s: float, due_in_ms: int
) -> None:
    known = KnownMarks(read_mark_ms, 0, as_of=50.0)
    mark_now_ms = read_mark_ms + int(elapsed_s * 1000) + later_mark_ms
    due_at_ms = max(0, mark_now_ms - due_in_ms)
    assert may_be_read(due_at_ms, known, now_ms=0, now=50.0 + elapsed_s, read_ahead_ms=0, skew_max_ms=later_mark_ms + 1)


def test_a_mark_may_leap_to_the_present_when_a_shard_gets_an_owner() -> None:
    stale = KnownMarks(NOW_MS - 3_600_000, 0, as_of=50.0)

    def suspect(due_at_ms: int) -> bool:
        return may_be_read(due_at_ms, stale, now_ms=NOW_MS, now=50.0, read_ahead_ms=3000, skew_max_ms=1000)

    assert suspect(NOW_MS + 4000)
    assert not suspect(NOW_MS + 4001)


def test_known_marks_cover_up_to_the_higher() -> None:
    assert KnownMarks(5, 7, 0.0).cancel_mark_ms == 7
    assert KnownMarks(9, 7, 0.0).cancel_mark_ms == 9
