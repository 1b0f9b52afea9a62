"""``dynein bootstrap``, and what ``dynein serve`` refuses to start with."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiobotocore.session import get_session

from tests.acceptance.fleet import REGION, Fleet, Result, fleet

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Fleet]:
    """An engine with nothing on it; the tests build on one another, in order."""
    async with fleet(tmp_path_factory.mktemp("bootstrap"), bootstrapped=False) as made:
        made.environment["DYNEIN_PORT"] = "0"
        yield made


def refusal(result: Result, code: int = 1) -> str:
    """What a refused command said: one sentence, no more."""
    assert result.code == code, result
    assert result.out == ""
    assert "Traceback" not in result.err
    assert "\x1b" not in result.err, "no colours in a pipe"
    assert result.err.startswith("error: ")
    assert result.err.count("\n") == 1, "one line, however long"
    return result.err.removeprefix("error: ").rstrip("\n")


async def everything(running: Fleet) -> list[Any]:
    """All that bootstrap looks after, as AWS describes it."""
    seen: list[Any] = []
    async with running.sqs() as sqs:
        for url in sorted((await sqs.list_queues())["QueueUrls"]):
            answer = await sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])
            seen.append(answer["Attributes"])
    opened = get_session().create_client(
        "dynamodb", region_name=REGION, endpoint_url=running.endpoint, aws_access_key_id="a", aws_secret_access_key="b"
    )
    async with opened as dynamodb:
        seen.append((await dynamodb.describe_table(TableName="dynein"))["Table"]["KeySchema"])
        seen += sorted((await dynamodb.scan(TableName="dynein"))["Items"], key=str)
    return seen


def outcomes(output: str) -> dict[str, str]:
    """Resource by resource, what was done."""
    lines = (re.fullmatch(r"(\w+) +(queue \S+|table \S+|layout)(?:  .+)?", line) for line in output.splitlines())
    return {found[2]: found[1] for found in lines if found is not None}


ALL = ("queue dynein-dead-letter", "queue dynein-inbound", "table dynein", "layout")


async def test_serve_before_bootstrap_says_to_run_it(running: Fleet) -> None:
    assert "run `dynein bootstrap`" in refusal(await running.run("serve"))


async def test_the_first_run_creates_everything_and_the_second_changes_nothing(running: Fleet) -> None:
    assert outcomes(await running.command("bootstrap")) == dict.fromkeys(ALL, "created")
    before = await everything(running)
    assert len(before) > 10
    assert outcomes(await running.command("bootstrap")) == dict.fromkeys(ALL, "verified")
    assert await everything(running) == before


async def test_what_was_changed_by_hand_is_put_right(running: Fleet) -> None:
    async with running.sqs() as sqs:
        url = (await sqs.get_queue_url(QueueName="dynein-inbound"))["QueueUrl"]
        await sqs.set_queue_attributes(QueueUrl=url, Attributes={"MessageRetentionPeriod": "60"})
        output = await running.command("bootstrap", "--json")
        assert '"outcome":"updated","detail":"MessageRetentionPeriod 60 -> 1209600"' in output
        answer = await sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])
        assert answer["Attributes"]["MessageRetentionPeriod"] == "1209600"


async def test_the_shard_count_is_raised_but_never_lowered(running: Fleet) -> None:
    raised = await running.command("bootstrap", DYNEIN_SHARD_COUNT="12")
    assert "updated  layout  60 s buckets, 12 shards (before: 8)" in raised.splitlines()
    assert refusal(await running.run("bootstrap", DYNEIN_SHARD_COUNT="8")) == (
        "table dynein has 12 shards, the settings say 8. "
        "The shard count only grows: set DYNEIN_SHARD_COUNT=12 (or unset it)"
    )
    assert outcomes(await running.command("bootstrap", DYNEIN_SHARD_COUNT="")) == dict.fromkeys(ALL, "verified")


async def test_serve_with_another_shard_count_says_what_to_do(running: Fleet) -> None:
    fewer, more, other_width = await asyncio.gather(
        running.run("serve", DYNEIN_SHARD_COUNT="8"),
        running.run("serve", DYNEIN_SHARD_COUNT="16"),
        running.run("serve", DYNEIN_SHARD_COUNT="", DYNEIN_BUCKET_WIDTH_S="30"),
    )
    assert "set DYNEIN_SHARD_COUNT=12" in refusal(fewer)
    assert "run `dynein bootstrap` to add shards, or set DYNEIN_SHARD_COUNT=12" in refusal(more)
    assert "set DYNEIN_BUCKET_WIDTH_S=60" in refusal(other_width)


async def test_serve_without_a_queue_that_bootstrap_makes_says_so(running: Fleet) -> None:
    refused = await running.run("serve", DYNEIN_SHARD_COUNT="", DYNEIN_DEAD_LETTER_QUEUE="elsewhere")
    assert refusal(refused) == "queue elsewhere does not exist: run `dynein bootstrap`"


async def test_what_aws_refuses_and_what_does_not_answer_is_told_in_a_sentence(running: Fleet) -> None:
    fifo, bad_name, nobody = await asyncio.gather(
        running.run("bootstrap", DYNEIN_INBOUND_QUEUE="a.fifo"),
        running.run("bootstrap", DYNEIN_INBOUND_QUEUE="not a name"),
        running.run("bootstrap", DYNEIN_ENDPOINT_URL="http://127.0.0.1:1"),
    )
    assert "must be standard queues" in refusal(fifo)
    assert "AWS refused" in refusal(bad_name)
    assert "http://127.0.0.1:1 (from DYNEIN_ENDPOINT_URL) cannot be reached" in refusal(nobody)


@pytest.mark.parametrize(
    ("arguments", "settings", "code", "sentence"),
    [
        (["serve", "--role", "cook"], {}, 2, "--role cook: no such role; there are api, ingester, dispatcher"),
        (["serve", "--role", "api"], {"DYNEIN_TOKEN_SECRETS": ""}, 1, "DYNEIN_TOKEN_SECRETS is needed by every role"),
        (["serve", "--role", "ingester"], {"DYNEIN_TOKEN_SECRETS": ""}, 1, "DYNEIN_TOKEN_SECRETS is needed by every"),
        (["serve", "--role", "dispatcher"], {"DYNEIN_TOKEN_SECRETS": ""}, 1, "DYNEIN_TOKEN_SECRETS is needed by every"),
        (["redrive"], {"DYNEIN_TOKEN_SECRETS": ""}, 1, "DYNEIN_TOKEN_SECRETS is needed to verify what is on the dead"),
        (["audit", "--repair"], {"DYNEIN_TOKEN_SECRETS": ""}, 1, "DYNEIN_TOKEN_SECRETS is needed to sign what a"),
        (["serve"], {"DYNEIN_TOKEN_SECRETS": "short"}, 1, "every secret in token_secrets needs 16 bytes or more"),
        (["serve"], {"DYNEIN_TICKS": "1"}, 1, "DYNEIN_TICKS: no such setting"),
        (["serve"], {"DYNEIN_TICK_S": "x"}, 1, "DYNEIN_TICK_S=x: write a number"),
        (["serve"], {"DYNEIN_TICK_S": "9"}, 1, "lease_ttl_s (10) must exceed 2 * tick_s + call_timeout_s (23)"),
        (["--config", "/nowhere.toml", "serve"], {}, 1, "DYNEIN_CONFIG names /nowhere.toml, which is not a file"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
async def test_a_command_with_wrong_settings_says_which(
    running: Fleet, arguments: list[str], settings: dict[str, str], code: int, sentence: str
) -> None:
    assert sentence in refusal(await running.run(*arguments, given="", **settings), code)


async def test_a_port_in_use_is_told_before_anything_starts(running: Fleet) -> None:
    taken = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = taken.sockets[0].getsockname()[1]
    try:
        refused = await running.run("serve", "--port", str(port), DYNEIN_SHARD_COUNT="")
    finally:
        taken.close()
        await taken.wait_closed()
    assert refusal(refused) == f"port {port} on 127.0.0.1 is in use; choose another with --port or DYNEIN_PORT"


async def test_a_settings_file_counts_unless_the_environment_says_otherwise(running: Fleet, tmp_path: Path) -> None:
    file = tmp_path / "dynein.toml"
    file.write_text("tick_s = 0.75\nport = 1234\n")
    printed = await running.command("--config", str(file), "settings", DYNEIN_PORT="4321")
    assert re.search(r"^tick_s +0\.75$", printed, re.MULTILINE)
    assert re.search(r"^port +4321$", printed, re.MULTILINE)
