from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynein.core.job import Attribute, Job, decode_job, encode_job

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=50)
ATTRIBUTES = st.dictionaries(TEXT, st.builds(Attribute, type=TEXT, value=TEXT), max_size=4)
JOBS = st.builds(
    Job,
    queue=TEXT,
    body=TEXT,
    name=st.none() | TEXT,
    attributes=ATTRIBUTES,
    message_group_id=st.none() | TEXT,
    deduplication_id=st.none() | TEXT,
    body_is_base64=st.booleans(),
    lead_ms=st.integers(0, 900_000),
    traceparent=st.none() | TEXT,
)


@given(JOBS)
def test_a_job_survives_its_travelling_form(job: Job) -> None:
    assert decode_job(encode_job(job)) == job


def test_the_travelling_form_is_short_and_readable() -> None:
    assert encode_job(Job("demo", "hello")) == b'{"q":"demo"}\nhello'
    with_attributes = Job(
        "demo", "two\nlines", attributes={"é": Attribute("String", "ö"), "n": Attribute("Number", "1")}
    )
    written = b'{"q":"demo","a":{"\xc3\xa9":["String",2],"n":["Number",1]}}\n\xc3\xb61two\nlines'
    assert encode_job(with_attributes) == written


@pytest.mark.parametrize("character", ['"', "\\", "\n", "\t", "é", "x"])
def test_no_character_takes_more_room_than_in_the_message(character: str) -> None:
    long = character * 1000
    empty = Job("demo", "", attributes={"a": Attribute("String", "")})
    full = Job("demo", long, attributes={"a": Attribute("String", long)})
    digits = len(str(len(long.encode()))) - 1
    assert len(encode_job(full)) - len(encode_job(empty)) == 2 * len(long.encode()) + digits


def test_fields_of_a_newer_version_are_passed_over() -> None:
    assert decode_job(b'{"q":"demo","zz":[1]}\nhello') == Job("demo", "hello")


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{}",
        b"{}\nx",
        b"[]\nx",
        b'{"q":"demo"}',
        b'{"q":"demo","b":"x"}',
        b'{"q":1}\nx',
        b'{"q":"demo"\nx',
        b'{"q":"demo","a":{"a":["String",3]}}\nxy',
        b'{"q":"demo","a":{"a":["String",-1]}}\nxy',
    ],
)
def test_what_is_not_a_job_is_a_value_error(raw: bytes) -> None:
    with pytest.raises(ValueError, match="not a job record"):
        decode_job(raw)


def test_bytes_that_are_no_text_are_a_value_error_too() -> None:
    for raw in (b'{"q":"\xff"}\nx', b'{"q":"demo"}\n\xff', b'{"q":"demo","a":{"a":["String",1]}}\n\xffx'):
        with pytest.raises(ValueError):  # noqa: PT011 - the words are those of the codec
            decode_job(raw)


def test_a_record_nested_without_end_is_refused_like_any_other() -> None:
    for deep in (b"[" * 100_000, b'{"queue":' + b"[" * 100_000, b'{"x":' + b'{"a":' * 100_000):
        with pytest.raises(ValueError, match="not a job record"):
            decode_job(deep + b"\n")
