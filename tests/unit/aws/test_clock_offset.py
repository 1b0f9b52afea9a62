from __future__ import annotations

from email.utils import formatdate

from prometheus_client import Gauge

from dynein.aws.clock_offset import OBSERVE_EVERY_S, ClockOffset
from dynein.testing import ManualClock

T0_MS = 1_800_000_000_000


def date(ms: int) -> str:
    return formatdate(ms / 1000, usegmt=True)


async def test_ahead_of_aws_is_positive_and_behind_is_negative() -> None:
    clock, gauge = ManualClock(T0_MS), Gauge("offset", "", registry=None)
    offset = ClockOffset(clock, gauge)
    offset.observe(date(T0_MS - 90_000))
    assert gauge._value.get() == 90.0
    await clock.advance(OBSERVE_EVERY_S)
    offset.on_sdk_response({"ResponseMetadata": {"HTTPHeaders": {"date": date(T0_MS + 31_000)}}})
    assert gauge._value.get() == -30.0


async def test_one_response_a_second_counts() -> None:
    clock, gauge = ManualClock(T0_MS), Gauge("offset", "", registry=None)
    offset = ClockOffset(clock, gauge)
    offset.observe(date(T0_MS))
    await clock.advance(OBSERVE_EVERY_S / 2)
    offset.observe(date(T0_MS - 500_000))
    assert gauge._value.get() == 0.0


def test_a_header_that_is_none_changes_nothing() -> None:
    clock, gauge = ManualClock(T0_MS), Gauge("offset", "", registry=None)
    gauge.set(7)
    for nonsense in ("", "yesterday", "Tue, 99 Foo 2026"):
        ClockOffset(clock, gauge).observe(nonsense)
    ClockOffset(clock, gauge).on_sdk_response({})
    assert gauge._value.get() == 7
