from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from dynein.core.delivered_message import (
    DUE_AT_ATTRIBUTE,
    ENCODING_ATTRIBUTE,
    NAME_ATTRIBUTE,
    TOKEN_ATTRIBUTE,
    outgoing_bytes,
    outgoing_message,
    own_attributes_count,
    user_attributes_max,
)
from dynein.core.job import Attribute, Job
from dynein.core.job_token import TOKEN_CHARS
from dynein.core.keys import DUE_MAX_MS
from dynein.core.queues import ATTRIBUTES_MAX, message_bytes

TRACED = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
ATTRIBUTES = st.dictionaries(
    st.text("abc", min_size=1), st.builds(Attribute, type=st.just("String"), value=st.text(min_size=1)), max_size=6
)


@given(body=st.text(), attributes=ATTRIBUTES, name=st.none() | st.text(min_size=1), base64=st.booleans())
def test_the_body_is_untouched_and_the_users_attributes_are_all_there(
    body: str,
    attributes: dict[str, Attribute],
    name: str | None,
    base64: bool,  # noqa: FBT001 - hypothesis names them
) -> None:
    job = Job("q", body, name=name, attributes=attributes, body_is_base64=base64)
    message = outgoing_message(job, "TOKEN", 123, fifo=False)
    assert message.body == body
    ours = {TOKEN_ATTRIBUTE: Attribute("String", "TOKEN"), DUE_AT_ATTRIBUTE: Attribute("Number", "123")}
    if name is not None:
        ours[NAME_ATTRIBUTE] = Attribute("String", name)
    if base64:
        ours[ENCODING_ATTRIBUTE] = Attribute("String", "base64")
    assert message.attributes == {**attributes, **ours}
    assert job.attributes == attributes
    assert len(ours) == own_attributes_count(named=name is not None, base64=base64)
    assert len(ours) + user_attributes_max(named=name is not None, base64=base64) == ATTRIBUTES_MAX
    traced = outgoing_message(replace(job, traceparent=TRACED), "TOKEN", 123, fifo=False)
    assert traced.attributes == {**message.attributes, "traceparent": Attribute("String", TRACED)}


@given(
    body=st.text(),
    attributes=ATTRIBUTES,
    name=st.none() | st.text(min_size=1),
    base64=st.booleans(),
    traceparent=st.sampled_from([None, TRACED]),
    due_at_ms=st.integers(0, DUE_MAX_MS),
)
def test_the_size_of_a_message_is_known_without_making_it(
    body: str,
    attributes: dict[str, Attribute],
    name: str | None,
    base64: bool,  # noqa: FBT001 - hypothesis names them
    traceparent: str | None,
    due_at_ms: int,
) -> None:
    job = Job("q", body, name=name, attributes=attributes, body_is_base64=base64, traceparent=traceparent)
    message = outgoing_message(job, "T" * TOKEN_CHARS, due_at_ms, fifo=False)
    assert outgoing_bytes(job, due_at_ms) == message_bytes(message.body, message.attributes)


def test_on_a_fifo_queue_the_token_is_the_deduplication_id_unless_the_user_gave_one() -> None:
    job = Job("q.fifo", "b", message_group_id="g")
    assert outgoing_message(job, "TOKEN", 1, fifo=True)[3:] == ("g", "TOKEN")
    own = Job("q.fifo", "b", message_group_id="g", deduplication_id="mine")
    assert outgoing_message(own, "TOKEN", 1, fifo=True)[3:] == ("g", "mine")


def test_a_standard_queue_gets_no_deduplication_id() -> None:
    job = Job("q", "b", message_group_id="g", deduplication_id="mine")
    assert outgoing_message(job, "TOKEN", 1, fifo=False)[3:] == ("g", None)


def test_the_delay_is_passed_on() -> None:
    assert outgoing_message(Job("q", "b"), "TOKEN", 1, fifo=False).delay_s == 0
    assert outgoing_message(Job("q", "b"), "TOKEN", 1, fifo=False, delay_s=7).delay_s == 7
