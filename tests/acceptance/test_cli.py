"""The command line as its users call it, against a running service."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import pytest_asyncio
from aiobotocore.session import get_session

from dynein import __version__
from dynein.aws.dynamodb.shards import DynamoShardRecords
from dynein.aws.dynamodb.table import DynamoTable
from dynein.aws.dynamodb.triggers import DynamoTriggerStore
from dynein.core.job import Job, encode_job
from dynein.core.job_token import JobRef, TokenKind, TokenSigner
from dynein.core.keys import JOB_ID_BYTES, TriggerKey, bucket_of
from dynein.core.trigger import Trigger
from dynein.runtime.context import command_context
from tests.acceptance.fleet import HANG_S, QUICK, REGION, SECRET, Fleet, Result, fleet, now_ms, until
from tests.acceptance.load import Load
from tests.acceptance.test_bootstrap import refusal

pytestmark = pytest.mark.asyncio(loop_scope="module")

BUCKET_WIDTH_MS = 60_000
SETTINGS_PAGE = Path(__file__).parents[2] / "docs" / "reference" / "settings.md"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Fleet]:
    """One process with all roles."""
    async with fleet(tmp_path_factory.mktemp("cli")) as made:
        made.environment |= QUICK
        process = await made.start(
            "api", "ingester", "dispatcher", DYNEIN_RETRY_BUDGET_S="2", DYNEIN_BACKOFF_MAX_S="0.5"
        )
        made.environment["DYNEIN_URL"] = process.url
        yield made


async def make_queue(running: Fleet, name: str) -> str:
    async with running.sqs() as sqs:
        return (await sqs.create_queue(QueueName=name))["QueueUrl"]


async def receive(running: Fleet, url: str) -> dict[str, Any]:
    """The next message of a queue, consumed."""
    async with running.sqs() as sqs:

        async def received() -> dict[str, Any] | None:
            response = await sqs.receive_message(QueueUrl=url, MessageAttributeNames=["All"])
            messages: list[Any] = list(response.get("Messages", []))
            return messages[0] if messages else None

        message = await until(received, f"a message on {url}")
        assert message is not None
        await sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    return message


def attribute(message: dict[str, Any], name: str) -> str:
    return str(message["MessageAttributes"][name]["StringValue"])


def fields(output: str) -> dict[str, str]:
    """The lines of an output for people."""
    assert "\x1b" not in output, "no colours in a pipe"
    pairs = (line.split(maxsplit=1) for line in output.splitlines())
    return {line[0]: line[1] for line in pairs}


# --- the program itself -----------------------------------------------------------------------------------------------


async def test_version(running: Fleet) -> None:
    assert await running.command("--version") == f"dynein {__version__}\n"


async def test_settings_hide_secrets_and_their_reference_page_is_up_to_date(running: Fleet) -> None:
    as_json, for_people, markdown = await asyncio.gather(
        running.command("settings", "--json"), running.command("settings"), running.command("settings", "--markdown")
    )
    in_force = json.loads(as_json)
    assert in_force["endpoint_url"] == running.endpoint
    assert in_force["tick_s"] == 0.5
    assert in_force["token_secrets"], "it says that there are some"
    assert SECRET not in as_json + for_people
    assert fields(for_people)["tick_s"] == "0.5"
    assert markdown == SETTINGS_PAGE.read_text()


# --- jobs -------------------------------------------------------------------------------------------------------------


async def test_a_jobs_whole_life_for_programs(running: Fleet) -> None:
    url = await make_queue(running, "programs")
    options = ["--delay", "1h", "--policy", "scheduled", "--name", "a name", "--attribute", "trace=abc=1"]
    before_ms = now_ms()
    submitted = json.loads(await running.command("submit", "programs", "the body", *options, "--json"))
    assert submitted["policy"] == "SCHEDULED"
    assert before_ms <= submitted["due_at_ms"] - 3_600_000 <= now_ms()

    async def stored() -> dict[str, Any]:
        found: dict[str, Any] = json.loads(await running.command("get", submitted["token"], "--json"))
        return found if found["state"] == "scheduled" else {}

    found = await until(stored, "the job is stored")
    assert (found["queue"], found["name"], found["cancellable"]) == ("programs", "a name", True)

    moved = json.loads(await running.command("move", submitted["token"], "--delay", "2h", "--json"))
    assert moved["previous_token"] == submitted["token"]
    refused = await running.run("cancel", submitted["token"], "--json")
    assert refused.code == 1
    problem = json.loads(refused.out)
    assert (problem["code"], problem["moved_to"]) == ("moved", moved["token"])

    moved = json.loads(await running.command("move", moved["token"], "--at", str(now_ms() + 2_000), "--json"))
    message = await receive(running, url)
    assert message["Body"] == "the body"
    assert attribute(message, "dynein-token") == moved["token"]
    assert attribute(message, "dynein-name") == "a name"
    assert attribute(message, "trace") == "abc=1"
    assert now_ms() >= moved["due_at_ms"], "not early"


async def test_a_jobs_whole_life_for_people(running: Fleet) -> None:
    await make_queue(running, "people")
    submitted = fields(await running.command("submit", "people", "hello", "--delay", "1h", "--cancellable"))
    assert submitted["policy"] == "SCHEDULED"
    assert submitted["due_at"].endswith("Z (in 1 h)")
    token = submitted["token"]
    assert "due_at_ms" not in submitted
    found = fields(await running.command("get", token))
    assert (found["cancellable"], found["state"]) in {("yes", "accepted"), ("yes", "scheduled")}
    assert fields(await running.command("cancel", token)) == {"token": token, "state": "cancelled"}
    assert fields(await running.command("cancel", token))["state"] == "cancelled", (
        "again, for a caller whose response was lost"
    )
    assert fields(await running.command("get", token))["state"] == "cancelled"
    refused = await running.run("move", token, "--delay", "1h")
    assert refusal(refused) == "The job was cancelled before, and will not be delivered"


async def test_the_body_can_come_from_standard_input_and_binary_safe_text_arrives_unchanged(running: Fleet) -> None:
    url = await make_queue(running, "stdin")
    text = 'tabs\tand "quotes"\nand more lines — ✓\n'
    assert (await running.run("submit", "stdin", "-", given=text)).code == 0
    assert (await receive(running, url))["Body"] == text


async def test_refusals_say_what_is_wrong_and_what_to_send(running: Fleet) -> None:
    await make_queue(running, "refusals")
    away = ["submit", "refusals", "x", "--url", "http://dynein.example"]
    (
        unknown,
        unreadable,
        forged,
        taken_back,
        bad_key,
        nowhere,
        no_url,
        proxied,
        bad_proxy,
        not_ours,
    ) = await asyncio.gather(
        running.run("submit", "missing", "x"),
        running.run("submit", "refusals", "x", "--delay", "soon"),
        running.run("get", "abc"),
        _cancel_immediate(running),
        running.run("submit", "refusals", "x", "--attribute", "trace"),
        running.run("submit", "refusals", "x", "--url", "http://127.0.0.1:1"),
        running.run("submit", "refusals", "x", "--url", "ftp://127.0.0.1"),
        running.run(*away, HTTP_PROXY="http://me:secret@127.0.0.1:1"),
        running.run(*away, ALL_PROXY="foo://p"),
        running.run("submit", "refusals", "x", "--url", running.endpoint),
    )
    assert refusal(unknown).startswith("queue 'missing' does not exist or is not visible to Dynein's credentials. ")
    assert refusal(unreadable).startswith("--delay cannot read 'soon'. Send seconds")
    assert refusal(forged) == "No job has this token: a job token has 52 characters, this one has 3"
    assert refusal(taken_back) == "The job is IMMEDIATE: it was handed to SQS, and cannot be cancelled"
    assert refusal(bad_key, code=2) == "--attribute trace: write key=value"
    assert refusal(nowhere).startswith("http://127.0.0.1:1 does not respond (")
    assert refusal(no_url, code=2).startswith("--url (or DYNEIN_URL) ftp://127.0.0.1 has the scheme ftp")
    assert refusal(proxied) == (
        "http://dynein.example does not respond through the proxy http://***@127.0.0.1:1 (from HTTP_PROXY) "
        "([Errno 111] Connection refused). Correct HTTP_PROXY, or list the host in NO_PROXY"
    )
    assert refusal(bad_proxy, code=2).startswith(
        "http://dynein.example cannot be called through the proxy foo://p (from ALL_PROXY): "
    )
    assert refusal(not_ours).startswith(f"the server at {running.endpoint} is not a Dynein API")


async def test_no_proxy_is_between_the_command_line_and_this_machine(running: Fleet) -> None:
    proxies = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), "http://127.0.0.1:1")
    await make_queue(running, "beside-a-proxy")
    submitted, audited = await asyncio.gather(
        running.run("submit", "beside-a-proxy", "x", **proxies), running.run("audit", **proxies)
    )
    assert submitted.code == 0, submitted.err
    assert "stranded" in audited.out, audited.err  # it has read the table


async def test_standard_input_that_is_no_text_is_said_to_be_so() -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "dynein", "submit", "q", "-"), stdin=PIPE, stdout=PIPE, stderr=PIPE
    )
    out, err = await process.communicate(b"caf\xe9")
    result = Result(process.returncode or 0, out.decode(), err.decode())
    assert refusal(result, code=2).startswith("standard input is not UTF-8 (byte 3)")


async def _cancel_immediate(running: Fleet) -> Any:
    token = json.loads(await running.command("submit", "refusals", "x", "--policy", "IMMEDIATE", "--json"))["token"]
    return await running.run("cancel", token)


# --- tail -------------------------------------------------------------------------------------------------------------


async def test_tail_shows_what_arrives_and_how_late(running: Fleet) -> None:
    url = await make_queue(running, "tailed")
    async with running.sqs() as sqs, running.command_line("tail", "tailed", "--json") as tailing:
        assert tailing.stdout is not None
        load = Load(running, "tailed")
        load.apis = [running.environment["DYNEIN_URL"]]
        due = await load.post(policy="SCHEDULED", delay=1, name="shown")
        shown = json.loads(await _line(tailing.stdout))
        assert (shown["token"], shown["name"], shown["body"]) == (due.token, "shown", "0")
        assert shown["due_at_ms"] == due.due_at_ms
        assert 0 <= shown["late_ms"] <= now_ms() - due.due_at_ms
        await sqs.send_message(QueueUrl=url, MessageBody="another program's")
        shown = json.loads(await _line(tailing.stdout))
        assert (shown["token"], shown["late_ms"], shown["body"]) == (None, None, "another program's")
        tailing.send_signal(signal.SIGINT)
        assert await tailing.wait() == 0
        response = await sqs.receive_message(QueueUrl=url)
        assert "Messages" not in response, "what was shown was consumed"


async def test_tail_can_give_back_what_it_shows(running: Fleet) -> None:
    url = await make_queue(running, "kept")
    async with running.sqs() as sqs:
        await sqs.send_message(QueueUrl=url, MessageBody="still here")
    async with running.command_line("tail", "kept", "--keep") as tailing:
        assert tailing.stdout is not None
        assert (await _line(tailing.stdout)).rstrip().endswith("kept   not a job  -                      still here")
        tailing.send_signal(signal.SIGINT)
        assert await tailing.wait() == 0
    assert (await receive(running, url))["Body"] == "still here"


async def test_tail_of_no_queue_says_so(running: Fleet) -> None:
    assert refusal(await running.run("tail", "missing")).startswith("queue 'missing' does not exist")


async def _line(stream: asyncio.StreamReader) -> str:
    async with asyncio.timeout(HANG_S):
        return (await stream.readline()).decode()


# --- redrive ----------------------------------------------------------------------------------------------------------


async def test_jobs_whose_queue_was_deleted_go_to_the_dead_letter_queue_and_come_back(running: Fleet) -> None:
    gone, healthy = Load(running, "gone"), Load(running, "healthy")
    gone.apis = healthy.apis = [running.environment["DYNEIN_URL"]]
    gone_url, dead_letters = await make_queue(running, "gone"), await make_queue(running, "dynein-dead-letter")
    async with healthy.consumed():
        delays = [6 + number / 4 for number in range(6)]  # past the hold window: stored
        await asyncio.gather(*(load.post(policy="SCHEDULED", delay=s) for s in delays for load in (gone, healthy)))
        async with running.sqs() as sqs:
            await sqs.delete_queue(QueueUrl=gone_url)

            async def all_dead_lettered() -> bool:
                response = await sqs.get_queue_attributes(
                    QueueUrl=dead_letters, AttributeNames=["ApproximateNumberOfMessages"]
                )
                return response["Attributes"]["ApproximateNumberOfMessages"] == "6"

            await until(all_dead_lettered, "six dead letters")
            response = await sqs.receive_message(
                QueueUrl=dead_letters, MaxNumberOfMessages=10, VisibilityTimeout=0, MessageAttributeNames=["All"]
            )
        reasons = {attribute(dict(letter), "dynein-reason") for letter in response["Messages"]}
        assert all("gone" in reason and "does not exist" in reason for reason in reasons), reasons
        await healthy.settled()

    too_soon = await running.run("redrive")
    assert too_soon.code == 1
    assert re.match(r"6 stay  UnknownQueue: queue 'gone' does not exist", too_soon.out)
    assert too_soon.out.endswith("\n0 redriven, 6 failed\n")
    await make_queue(running, "gone")
    first = await running.command("redrive", "--max", "2")
    assert first == "2 redriven, 0 failed. Stopped at --max: there may be more, run it again\n"
    rest = json.loads(await running.command("redrive", "--queue", "gone", "--json"))
    assert (rest["redriven"], rest["failed"]) == (4, {})
    came = [await receive(running, gone_url) for _ in range(6)]
    assert {attribute(message, "dynein-token") for message in came} == {job.token for job in gone.accepted.values()}
    assert {message["Body"] for message in came} == gone.accepted.keys()


# --- audit ------------------------------------------------------------------------------------------------------------


class Audits(NamedTuple):
    """Of a store with a stranded trigger in it."""

    token: str
    found: Result
    repairing: asyncio.Task[str]


@pytest_asyncio.fixture(scope="module", loop_scope="module", autouse=True)
async def audits(running: Fleet) -> AsyncIterator[Audits]:
    """Begun before all tests: a repair checks again after ten seconds."""
    await make_queue(running, "audited")
    token = await plant(running, queue="audited")
    found = await running.run("audit")
    repairing = asyncio.create_task(running.command("audit", "--repair", "--json"))
    yield Audits(token, found, repairing)
    repairing.cancel()
    await asyncio.gather(repairing, return_exceptions=True)


async def test_audit_finds_a_stranded_trigger_and_its_repair_delivers_it(running: Fleet, audits: Audits) -> None:
    token = audits.token
    assert audits.found.code == 1
    assert re.match(rf"stranded +due \S+ \S+ UTC  shard 3 +bucket \d+  {token}\n", audits.found.out)
    assert "\nnot clean: 1 stranded, 0 overdue, 0 undecodable of 1 trigger and " in audits.found.out
    repaired = json.loads(await audits.repairing)
    assert [(finding["token"], finding["repaired"]) for finding in repaired["findings"]] == [(token, True)]
    message = await receive(running, await make_queue(running, "audited"))
    assert (message["Body"], attribute(message, "dynein-token")) == ("stranded", token)


async def test_audit_of_a_healthy_fleet_is_clean(running: Fleet) -> None:
    await make_queue(running, "healthy")
    await running.command("submit", "healthy", "x", "--delay", "2h")

    async def clean_with_a_trigger() -> bool:
        result = await running.run("audit")
        seen = r"clean: 0 stranded, 0 overdue, 0 undecodable of [1-9]\d* triggers? and \d+ tombstones? in \d+ buckets?"
        return result.code == 0 and re.fullmatch(seen, result.out.strip()) is not None

    await until(clean_with_a_trigger, "a clean audit that sees a trigger")


async def plant(running: Fleet, *, queue: str) -> str:
    """Put a trigger where no dispatcher will read again: an hour back, in a bucket that is retired. Its token."""
    key = TriggerKey(now_ms() - 3_600_000, b"\x07" * JOB_ID_BYTES, 3)
    token = TokenSigner([SECRET.encode()]).sign(JobRef(TokenKind.SCHEDULED, key))
    opened = get_session().create_client(
        "dynamodb", region_name=REGION, endpoint_url=running.endpoint, aws_access_key_id="a", aws_secret_access_key="b"
    )
    async with opened as client:
        table = DynamoTable(client, "dynein", command_context())
        store, shards = DynamoTriggerStore(table, BUCKET_WIDTH_MS), DynamoShardRecords(table)

        async def retired() -> bool:
            (record,) = await shards.get([key.shard])
            return record.retired_before > bucket_of(key.due_at_ms, BUCKET_WIDTH_MS)

        await until(retired, "the dispatcher is past that bucket")
        assert await store.add([Trigger(key, token, encode_job(Job(queue, "stranded")))]) == []
    return token
