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
    traceparent=st.none() | TEXT,
)


@given(JOBS)
def test_a_job_survives_its_travelling_form(job: Job) -> None:
    assert decode_job(encode_job(job)) == job


def test_the_travelling_form_is_short_and_readable() -> None:
    assert encode_job(Job("demo", "hello")) == b'{"q":"demo","b":"hello"}'


def test_a_record_of_before_there_was_trace_context_is_read() -> None:
    assert decode_job(b'{"q":"demo","b":"hello","n":"x"}') == Job("demo", "hello", name="x", traceparent=None)


def test_fields_of_a_newer_version_are_passed_over() -> None:
    assert decode_job(b'{"q":"demo","b":"hello","zz":[1]}') == Job("demo", "hello")


@pytest.mark.parametrize("raw", [b"", b"{}", b"[]", b'{"q":"demo"}', b'{"q":1,"b":"x"}', b'{"q":"demo","b":"x"'])
def test_what_is_not_a_job_is_a_value_error(raw: bytes) -> None:
    with pytest.raises(ValueError, match="not a job record"):
        decode_job(raw)


def test_bytes_that_are_no_text_are_a_value_error_too() -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the words are those of the codec
        decode_job(b'{"q":"demo","b":"\xff"}')


def test_a_record_nested_without_end_is_refused_like_any_other() -> None:
    for deep in (b"[" * 100_000, b'{"queue":' + b"[" * 100_000, b'{"x":' + b'{"a":' * 100_000):
        with pytest.raises(ValueError, match="not a job record"):
            decode_job(deep)
