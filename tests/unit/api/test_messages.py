"""What a caller reads about a bad request: in the words of JSON and of the field, once, with where and what to send."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dynein.api.decoding_messages import why_malformed, wrong_value
from dynein.api.problems import problem_of
from dynein.api.schemas import JobRequest
from dynein.errors import AccessDenied, UnknownQueue
from tests.unit.api.setting import Api
from tests.unit.api.test_routes import call, post, problem

NOT_OUR_WORDS = re.compile(
    r"\b(?:str|int|float|bool|dict|list|tuple|NoneType|None|True|False|enum|surrogateescape|codec|struct)\b"
    r"|`|Expected|\bgot\b|malformed|wrong type|\$|\(byte \d+\)\)"
)
"""Words of Python and of its decoder."""


def checked(document: dict[str, Any]) -> str:
    """The sentences of a problem, which must be ours, and each be there once."""
    text = " ".join(document[part] for part in ("detail", "fix") if part in document)
    assert not NOT_OUR_WORDS.search(re.sub(r'queue .*?(?= (?:is|has|does))|is ".*?",', "", text)), text
    sentences = [sentence for sentence in re.split(r"(?<=[.!?]) ", text) if len(sentence) > 10]
    assert len(sentences) == len(set(sentences)), text
    assert ".." not in text
    assert len(text) < 700
    return text


# --- what is no JSON --------------------------------------------------------------------------------------------------

START = b'{"queue":"demo","body":"'


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (b"", "the body is empty: send a JSON object"),
        (b" \n", "the body is empty: send a JSON object"),
        (b"{", "the JSON ends too early, at byte 1: a quote, bracket or brace is not closed"),
        (START, "the JSON ends too early, at byte 24: a quote, bracket or brace is not closed"),
        (
            START + b'cut \\ud83d"}',
            "the escape \\ud83d at byte 28 is half of a character: the other half of the surrogate pair is missing",
        ),
        (START + b'\\ud83d\\n"}', "the escape \\ud83d at byte 24 is half of a character"),
        (START + b'\\ud83d\\u0041"}', "the escape \\ud83d at byte 24 is half of a character"),
        (START + b'\\ud83d\\ude00\\ude00"}', "the escape \\ude00 at byte 36 is half of a character"),
        (START + b'\\\\\\udc00"}', "the escape \\udc00 at byte 26 is half of a character"),
        (b'{"\\ud83d":1}', "the escape \\ud83d at byte 2 is half of a character"),
        (b"\xef\xbb\xbf{}", "the body begins with a byte order mark (EF BB BF): send it without one"),
        ('{"queue":"demo"}'.encode("utf-16"), "the body is UTF-16 or UTF-32: JSON is sent as UTF-8"),
        ('{"queue":"demo"}'.encode("utf-16-be"), "the body is UTF-16 or UTF-32: JSON is sent as UTF-8"),
        ('{"queue":"demo"}'.encode("utf-32-le"), "the body is UTF-16 or UTF-32: JSON is sent as UTF-8"),
        (
            START + "caf\xe9".encode("latin-1") + b'"}',
            "the JSON is not UTF-8: byte 27 is E9. If the text is in another encoding, such as Latin-1, convert it",
        ),
        (START + b"x" * 65_534 + "é".encode() + b'\xe9"}', "the JSON is not UTF-8: byte 65560 is E9"),
        (b"{'queue':'demo'}", "a field's name must be in double quotes: ' at byte 1 is not. JSON has no single quotes"),
        (b"{queue:1}", "a field's name must be in double quotes: q at byte 1 is not"),
        (b'{"queue":"demo",}', "JSON has no comma after the last field (byte 16)"),
        (b'{"json":[1,]}', "JSON has no comma after the last value (byte 11)"),
        (b'{"queue" "demo"}', "a colon is missing after a field's name (byte 9)"),
        (b'{"queue":"demo" "body":1}', "a comma is missing between two fields, or the closing brace (byte 16)"),
        (b'{"json":[1 2]}', "a comma is missing between two values, or the closing bracket (byte 11)"),
        (b'{"queue":"demo"} x', "there is more after the end of the JSON value: x at byte 17"),
        (b'{"queue":"demo"}{}', "there is more after the end of the JSON value: { at byte 16"),
        (START + b'a\nb"}', "a text has the character U+000A at byte 25: write it as an escape, such as \\n or \\t"),
        (START + b'\x00"}', "a text has the character U+0000 at byte 24"),
        (START + b'\\x"}', "the escape \\x at byte 24 does not exist in JSON"),
        (START + b'\\u12zz"}', "an escape \\u needs four hexadecimal digits"),
        (b'{"delay":01}', "a number is not written as JSON writes it (byte 10)"),
        (b'{"json":NaN}', "JSON has no NaN and no Infinity (byte 8)"),
        (b'{"json":-Infinity}', "JSON has no NaN and no Infinity"),
        (b'{"json":tru}', "what begins at byte 8 is no JSON value"),
        (b'{"json":undefined}', "what begins at byte 8 is no JSON value: text needs double quotes"),
        (b"queue=demo&body=x", "the body is a form, not JSON: send a JSON object"),
        (b"<html>", "JSON has no < in this place (byte 0)"),
        ('{"json":\u201cx\u201d}'.encode(), "JSON has no \u201c in this place (byte 8)"),
        (b'{"json":' + b"[" * 100_000, "nested too deeply"),
    ],
)
async def test_what_is_no_json_is_explained_with_its_place(body: bytes, detail: str) -> None:
    found = problem(await post(Api(), "/v1/jobs", body), 400, "malformed-json")
    assert detail in checked(found)


@given(st.binary(max_size=60) | st.text(max_size=40).map(lambda text: json.dumps({"queue": text})[:-1].encode()))
@example(b'"\\ud83d')
def test_any_bytes_are_explained_in_our_words(raw: bytes) -> None:
    for message in ("Input data was truncated", "JSON is malformed: invalid character (byte 3)", "something new"):
        explained = why_malformed(message, raw)
        assert message not in explained
        assert 0 < len(explained) < 200


# --- values of the wrong kind -----------------------------------------------------------------------------------------

VALUES = {
    "text": '"x"',
    "a number": "7",
    "a boolean": "true",
    "an array": "[1]",
    "an object": '{"a": 1}',
    "null": "null",
}
TAKES = {
    "queue": ["text"],
    "body": ["text", "null"],
    "body_base64": ["text", "null"],
    "json": list(VALUES),
    "run_at": ["text", "a number", "null"],
    "timezone": ["text", "null"],
    "delay": ["text", "a number", "null"],
    "policy": ["text", "null"],
    "cancellable": ["a boolean", "null"],
    "allow_for_queue_delay": ["a boolean", "null"],
    "name": ["text", "null"],
    "attributes": ["an object", "null"],
    "attributes.a": ["text", "a number", "an object"],
    "message_group_id": ["text", "null"],
    "deduplication_id": ["text", "null"],
    "token": ["text", "null"],
    "traceparent": ["text", "null"],
}


def test_every_field_is_in_the_table() -> None:
    assert set(JobRequest.__struct_fields__) <= set(TAKES)


@pytest.mark.parametrize("kind", VALUES)
@pytest.mark.parametrize("field", TAKES)
async def test_a_value_of_another_kind_is_named_as_json_names_it(field: str, kind: str) -> None:
    if kind in TAKES[field]:
        return
    fields = {"queue": '"demo"', "body": '"x"'}
    name, _, attribute = field.partition(".")
    fields[name] = f'{{"{attribute}": {VALUES[kind]}}}' if attribute else VALUES[kind]
    body = "{" + ", ".join(f'"{key}": {value}' for key, value in fields.items()) + "}"
    document = problem(await post(Api(), "/v1/jobs", body.encode()), 422, "invalid-field")
    assert document["field"] == field
    text = checked(document)
    assert text.startswith(f"{field} is {kind}; it must be "), text
    assert document["fix"].startswith("Send ")


@pytest.mark.parametrize("kind", [kind for kind in VALUES if kind != "an object"])
@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/jobs/batch", "/v1/tokens"])
async def test_a_request_of_another_kind(path: str, kind: str) -> None:
    document = problem(await post(Api(), path, VALUES[kind].encode()), 422, "invalid-field")
    assert document["field"] == "$"
    assert checked(document).startswith(f"The request is {kind}; it must be an object. Send an object")


@pytest.mark.parametrize(
    ("fields", "field", "said"),
    [
        ({"policy": "soon"}, "policy", "none of its values. Send one of AUTO, IMMEDIATE, SQS_DELAYED, SCHEDULED."),
        ({"policy": "immediate"}, "policy", "none of its values"),
        ({"dealy": 1}, "dealy", "dealy is not a field of this request. Did you mean 'delay'?"),
        ({"runAt": 1}, "runAt", "Did you mean 'run_at'?"),
        ({"zzz": 1}, "zzz", "Send only queue, body, json"),
        ({"queue": ""}, "queue", "queue has 0 characters. Send the name or the URL of an SQS queue."),
        ({"body": ""}, "body", "body is empty. SQS accepts no empty text"),
        ({"body": "a\x0bb"}, "body", "the character U+000B at position 1, which SQS does not accept"),
        ({"body_base64": "x"}, "body", "body_base64 cannot be sent together with body. Send exactly one of"),
        ({"name": ""}, "name", "name is empty."),
        ({"name": "x" * 257}, "name", "name has 257 characters. Send at most 256."),
        ({"delay": "15M"}, "delay", "the unit 'M' could mean minutes or months. Send m for minutes"),
        ({"delay": "15x"}, "delay", "the unit 'x' is unknown"),
        ({"delay": -1}, "delay", "delay is negative. Send 0 or more"),
        ({"delay": "P1M"}, "delay", "years and months have no fixed length. Send days"),
        ({"delay": 1, "run_at": 1896080400000}, "delay", "delay and run_at exclude each other."),
        ({"run_at": "2027-06-30"}, "run_at", "run_at has no time of day."),
        ({"run_at": "2027-06-30T12:00"}, "run_at", "run_at has no UTC offset. End it with"),
        ({"run_at": 1_896_080_400}, "run_at", "it looks like seconds. Multiply seconds by 1000."),
        ({"run_at": 99999999999999999999}, "run_at", "lies more than 3660 days ahead"),
        ({"delay": 99999999999999999999999999}, "delay", "lies more than 3660 days ahead"),
        ({"message_group_id": ""}, "message_group_id", "Send 1 to 128 of A-Z a-z 0-9 and ASCII punctuation"),
        ({"deduplication_id": "a"}, "deduplication_id", "only works on a FIFO queue."),
        ({"token": "abc"}, "token", "token is not valid: a job token has 52 characters, this one has 3."),
        ({"attributes": {"a b": "x"}}, "attributes.a b", "is not an attribute name that SQS accepts."),
        ({"attributes": {"aws.x": "x"}}, "attributes.aws.x", "begins with a prefix that is reserved for AWS."),
        (
            {"attributes": {"dynein-x": "x"}},
            "attributes.dynein-x",
            "begins with dynein-, which is reserved",
        ),
        ({"attributes": {"a": ""}}, "attributes.a", "attributes.a is empty."),
        ({"attributes": {"a": {"type": "String"}}}, "attributes.a.value", "is missing. Add it."),
        (
            {"attributes": {"a": {"type": "Text", "value": "x"}}},
            "attributes.a.type",
            'Send "String", "Number" or "Binary',
        ),
        (
            {"attributes": {"a": {"type": "Binary", "value": "x"}}},
            "attributes.a",
            "is not base64. Send",
        ),
        ({"attributes": {"a": 1e200}}, "attributes.a", "is not a Number that SQS accepts."),
        ({"attributes": {f"a{i}": "x" for i in range(11)}}, "attributes", "attributes has 11 entries; SQS allows 10"),
    ],
)
async def test_a_wrong_value_is_explained(fields: dict[str, Any], field: str, said: str) -> None:
    content = {"queue": "demo", "body": "x"} | fields
    document = problem(await post(Api(), "/v1/jobs", content), 422, "invalid-field")
    assert said in checked(document)
    assert document["field"] in {field, "body_base64"}


async def test_a_field_that_is_missing() -> None:
    for content, field in (({"body": "x"}, "queue"), ({"queue": "demo"}, "body")):
        document = problem(await post(Api(), "/v1/jobs", content), 422, "invalid-field")
        assert checked(document).startswith(f"{field} is missing.")
    moved = problem(await call(Api(), "PATCH", f"/v1/jobs/{'x' * 52}", {}), 404, "invalid-token")
    assert checked(moved)


@settings(max_examples=50)
@given(st.text(max_size=200))
def test_a_message_of_the_decoder_that_we_do_not_know_is_not_passed_on(message: str) -> None:
    known = ("Expected `", "Invalid enum value", "Number out of range")
    if not message.startswith(known):
        assert wrong_value(message).problem == "has a value that it cannot have."


# --- queues -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "detail", "fix"),
    [
        (UnknownQueue("demmo"), "queue 'demmo' does not exist or is not visible to", "sqs:GetQueueUrl and sqs:SendM"),
        (
            UnknownQueue("http://127.0.0.1:4566/1/x"),
            "queue 'http://127.0.0.1:4566/1/x' does not exist or is not visible to",
            "sqs:GetQueueAttributes and sqs:SendMessage",
        ),
        (
            UnknownQueue("x", str(AccessDenied("SendMessageBatch: AccessDenied: no"))),
            "credentials. SendMessageBatch",
            "",
        ),
        (UnknownQueue("a", problem="is an ARN.", fix="Send its name."), "queue 'a' is an ARN.", "Send its name."),
        (UnknownQueue("x" * 100_000), "xxx...'", "Create the queue"),
    ],
)
def test_an_unknown_queue(error: UnknownQueue, detail: str, fix: str) -> None:
    document = problem_of(error, "/v1/jobs")
    assert detail in document.detail
    assert fix in str(document.fix)
    assert document.detail.count("does not exist") <= 1
    assert len(document.detail) < 1000


async def test_a_queue_that_has_gone_is_said_once() -> None:
    """Its name is known still, and SQS says that there is no such queue any more."""
    api = Api()
    await post(api, "/v1/jobs", {"queue": "demo", "body": "x"})
    api.queues.remove("demo")
    document = problem(await post(api, "/v1/jobs", {"queue": "demo", "body": "x"}), 422, "unknown-queue")
    assert checked(document).count("does not exist") == 1
