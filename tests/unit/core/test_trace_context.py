from __future__ import annotations

import string

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from dynein.core.trace_context import TRACEPARENT_CHARS, parse_traceparent, traceparent_of

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
SPAN_ID = "b7ad6b7169203331"
GOOD = f"00-{TRACE_ID}-{SPAN_ID}-01"
HEX = "0123456789abcdef"


def hex_of(length: int) -> st.SearchStrategy[str]:
    return st.text(HEX, min_size=length, max_size=length)


IDS = st.tuples(hex_of(32), hex_of(16)).filter(lambda ids: int(ids[0], 16) > 0 and int(ids[1], 16) > 0)


@given(IDS, hex_of(2))
def test_a_valid_context_stays_as_it_is(ids: tuple[str, str], flags: str) -> None:
    text = f"00-{ids[0]}-{ids[1]}-{flags}"
    assert len(text) == TRACEPARENT_CHARS
    assert parse_traceparent(text) == text


@given(IDS, st.integers(1, 254), st.integers(0, 255), st.just("") | st.text(max_size=20).map(lambda more: f"-{more}"))
def test_of_a_later_version_what_version_00_has_is_kept(
    ids: tuple[str, str], version: int, flags: int, more: str
) -> None:
    text = f"{version:02x}-{ids[0]}-{ids[1]}-{flags:02x}{more}"
    assert parse_traceparent(text) == f"00-{ids[0]}-{ids[1]}-{flags % 4:02x}"


@pytest.mark.parametrize(
    "text",
    [
        "",
        f"ff-{TRACE_ID}-{SPAN_ID}-01",
        f"00-{'0' * 32}-{SPAN_ID}-01",
        f"00-{TRACE_ID}-{'0' * 16}-01",
        f"00-{TRACE_ID.upper()}-{SPAN_ID}-01",
        f"00-{TRACE_ID}-{SPAN_ID}-1",
        f"00-{TRACE_ID}-{SPAN_ID}",
        f"00-{TRACE_ID[1:]}-{SPAN_ID}-01",
        f"00-{TRACE_ID}-{SPAN_ID[1:]}-01",
        f"00-{TRACE_ID}0-{SPAN_ID}-01",
        f"{GOOD}-more",
        f"{GOOD}-",
        f"{GOOD}\n",
        f"01-{TRACE_ID}-{SPAN_ID}-01more",
        GOOD.replace("-", "_"),
        f"0\u0660-{TRACE_ID}-{SPAN_ID}-01",
    ],
)
def test_what_is_not_a_context_is_none(text: str) -> None:
    assert parse_traceparent(text) is None


@given(st.integers(0, TRACEPARENT_CHARS - 1), st.characters())
def test_one_wrong_character_makes_it_another_context_or_none(at: int, character: str) -> None:
    assume(character != GOOD[at])
    found = parse_traceparent(GOOD[:at] + character + GOOD[at + 1 :])
    if character not in HEX or GOOD[at] == "-":
        assert found is None
    else:
        assert found is None or (len(found) == TRACEPARENT_CHARS and found.isascii())


@given(st.text(HEX + "-" + string.ascii_uppercase, max_size=80) | st.text(max_size=80))
def test_whatever_is_read_reads_as_itself_again(text: str) -> None:
    found = parse_traceparent(text)
    assert found is None or parse_traceparent(found) == found


@pytest.mark.parametrize(
    ("headers", "found"),
    [
        ([], None),
        ([(b"host", b"x"), (b"traceparent", GOOD.encode())], GOOD),
        ([(b"traceparent", b" \t" + GOOD.encode() + b" ")], GOOD),
        ([(b"traceparent", b"\xff" + GOOD.encode())], None),
        ([(b"traceparent", b"nonsense")], None),
        ([(b"traceparent", GOOD.encode()), (b"traceparent", GOOD.encode())], None),
        ([(b"tracestate", GOOD.encode())], None),
    ],
)
def test_a_request_has_one_valid_header_or_no_context(headers: list[tuple[bytes, bytes]], found: str | None) -> None:
    assert traceparent_of(headers) == found
