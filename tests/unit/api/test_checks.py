from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynein.api import checks
from dynein.core.job import Attribute
from dynein.core.queues import OutgoingMessage
from dynein.errors import InvalidField
from dynein.testing.queue_rules import refusal

XML_LEGAL = st.characters(
    exclude_categories=["Cs"], exclude_characters="".join(map(chr, range(32))) + "\ufffe\uffff"
) | st.sampled_from("\t\n\r")


@given(st.text(XML_LEGAL, min_size=1))
def test_every_legal_text_passes(value: str) -> None:
    checks.text("body", value)


@given(
    st.text(XML_LEGAL, max_size=5),
    st.one_of(
        st.sampled_from("\x00\x08\x0b\x0c\x0e\x1f\ufffe\uffff\ud800\udfff"),
        st.integers(0xD800, 0xDFFF).map(chr),
    ),
    st.text(max_size=5),
)
def test_the_first_illegal_character_is_named_with_its_place(before: str, illegal: str, after: str) -> None:
    place = f"U\\+{ord(illegal):04X} at position {len(before)},"
    with pytest.raises(InvalidField, match=place):
        checks.text("body", before + illegal + after)


@pytest.mark.parametrize("edge", ["\x20", "\x7f", "\ud7ff", "\ue000", "\ufffd", "\U00010000", "\U0010ffff"])
def test_the_edges_of_what_is_legal(edge: str) -> None:
    checks.text("body", edge)


@pytest.mark.parametrize("value", ["AA==", "AAA=", "AAAA", "+/+/"])
def test_base64(value: str) -> None:
    checks.base64_text("body_base64", value)


@pytest.mark.parametrize("value", ["", "A", "AA", "AA=", "AA==\n", " AA==", "-_-_", "AAé=", "AA==AA=="])
def test_what_is_not_base64(value: str) -> None:
    with pytest.raises(InvalidField):
        checks.base64_text("body_base64", value)


@pytest.mark.parametrize("name", ["a", "A-b_c.d", "9", "aws", "awsx", "x" * 256, "d.dynein-x", "dyneinx"])
def test_attribute_names(name: str) -> None:
    checks.attributes({name: Attribute("String", "v")}, named=False, base64_body=False)


@pytest.mark.parametrize(
    "name",
    ["", ".a", "a.", "a..b", "a b", "é", "x" * 257, "AWS.x", "aws.x", "Amazon.x", "AMAZON.x", "dynein-x", "Dynein-x"],
)
def test_attribute_names_that_sqs_or_we_keep(name: str) -> None:
    with pytest.raises(InvalidField) as caught:
        checks.attributes({name: Attribute("String", "v")}, named=False, base64_body=False)
    assert caught.value.field in {f"attributes.{name}", f"attributes.{name[:256]}..."}


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("String", "v"),
        ("String.uuid", "v"),
        ("Number", "0"),
        ("Number", "-1.5e-3"),
        ("Number", "+12"),
        ("Number", ".5"),
        ("Number.int", "9" * 38),
        ("Number", "1e125"),
        ("Number", "1e-128"),
        ("Binary", "AA=="),
        ("Binary.png", "AA=="),
    ],
)
def test_attribute_values(kind: str, value: str) -> None:
    checks.attributes({"a": Attribute(kind, value)}, named=False, base64_body=False)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("String", ""),
        ("String", "\x00"),
        ("string", "v"),
        ("Strings", "v"),
        ("String.", "v"),
        ("String." + "x" * 250, "v"),
        ("Number", ""),
        ("Number", "one"),
        ("Number", "1 "),
        ("Number", "0x10"),
        ("Number", "1_0"),
        ("Number", "\u0661"),
        ("Number", "NaN"),
        ("Number", "Infinity"),
        ("Number", "9" * 39),
        ("Number", "1e126"),
        ("Number", "1e-129"),
        ("Number", "1e99999"),
        ("Number", "9" * 1000),
        ("Binary", "v"),
        ("Binary", ""),
    ],
)
def test_attribute_values_that_sqs_does_not_take(kind: str, value: str) -> None:
    with pytest.raises(InvalidField, match=r"^attributes\.a"):
        checks.attributes({"a": Attribute(kind, value)}, named=False, base64_body=False)


@pytest.mark.parametrize(
    ("named", "base64_body", "count_max"), [(False, False, 8), (True, False, 7), (False, True, 7), (True, True, 6)]
)
def test_the_message_of_too_many_attributes_has_the_exact_number(
    named: bool,  # noqa: FBT001
    base64_body: bool,  # noqa: FBT001
    count_max: int,
) -> None:
    attributes = {f"a{i}": Attribute("String", "v") for i in range(count_max)}
    checks.attributes(attributes, named=named, base64_body=base64_body)
    attributes["one-more"] = Attribute("String", "v")
    with pytest.raises(InvalidField, match=re.escape(f"Send at most {count_max}.")):
        checks.attributes(attributes, named=named, base64_body=base64_body)


@pytest.mark.parametrize("value", ["a", "A1!~", "x" * 128, "\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"])
def test_message_ids(value: str) -> None:
    checks.message_id("message_group_id", value)


@pytest.mark.parametrize("value", ["", "a b", "x" * 129, "é", "\n"])
def test_message_ids_that_sqs_does_not_take(value: str) -> None:
    with pytest.raises(InvalidField):
        checks.message_id("message_group_id", value)


@given(
    st.dictionaries(
        st.text(st.sampled_from("aA9._- é"), max_size=4),
        st.builds(
            Attribute,
            st.sampled_from(["String", "Number", "Binary", "String.x", "Number.", "Text"]),
            st.one_of(st.text(max_size=3), st.sampled_from(["1", "-1.5", "1e5", ".", "AA==", "A==="])),
        ),
        max_size=3,
    ),
    st.text(max_size=3),
)
def test_what_passes_here_passes_a_second_reading_of_sqs_rules(user: dict[str, Attribute], group: str) -> None:
    """The fakes have rules of their own, written from SQS's documentation independently of ours."""
    try:
        checks.attributes(user, named=False, base64_body=False)
        checks.message_id("message_group_id", group)
    except InvalidField:
        return
    assert refusal(OutgoingMessage("body", user, message_group_id=group, deduplication_id=group), fifo=True) is None
