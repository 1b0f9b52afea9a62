"""The conservation ledger over real processes: it balances when all is well, and misses exactly what is lost."""

from __future__ import annotations

import asyncio
import json
import re
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dynein.aws.dynamodb.roster import DynamoRoster
from dynein.aws.dynamodb.table import DynamoTable
from dynein.aws.dynamodb.triggers import DynamoTriggerStore
from dynein.core.job_token import parse
from dynein.core.ledger import FLOWS, Counts
from dynein.runtime.context import command_context
from tests.acceptance.fleet import QUICK, Fleet, Process, fleet, until

WIDTH_MS = 60_000
SOON = {
    **QUICK,
    "DYNEIN_LEDGER_WINDOW_S": "3",
    "DYNEIN_LEDGER_INTERVAL_S": "1",
    "DYNEIN_LEDGER_GRACE_S": "6",
    "DYNEIN_RETRY_BUDGET_S": "2",
    "DYNEIN_BACKOFF_MAX_S": "0.5",
}
AHEAD_S = 15
"""Due so much later: time enough to be stored, and to be cancelled or moved, on a machine that has much else to do."""
PLAIN, CANCELLED, MOVED, DOOMED, REPEATS = 240, 20, 20, 10, 3
EXPECTED = Counts(
    accepted=PLAIN + CANCELLED + MOVED + DOOMED + 1,
    moved_in=MOVED,
    moved_out=MOVED,
    delivered=PLAIN + MOVED + 1,
    cancelled=CANCELLED,
    dead_lettered=DOOMED,
)


class Client:
    """What a user does."""

    def __init__(self, running: Fleet, api: Process) -> None:
        self._http = running.http
        self._url = api.url

    async def submit(self, jobs: list[dict[str, Any]]) -> list[str]:
        """The tokens."""
        async with self._http.post(f"{self._url}/v1/jobs/batch", json={"jobs": jobs}) as answer:
            results = (await answer.json())["results"]
        assert [result["status"] for result in results] == [202] * len(jobs), results
        return [result["token"] for result in results]

    async def prepare(self, delay_s: float) -> str:
        async with self._http.post(f"{self._url}/v1/tokens", json={"delay": delay_s}) as answer:
            return str((await answer.json())["token"])

    async def stored(self, tokens: list[str]) -> None:
        """Return once all are in the trigger store."""

        async def all_stored() -> bool:
            return set(await asyncio.gather(*map(self._state, tokens))) == {"scheduled"}

        await until(all_stored, "the jobs are stored")

    async def cancel(self, token: str) -> None:
        async with self._http.delete(f"{self._url}/v1/jobs/{token}") as answer:
            assert answer.status == 200, await answer.text()

    async def move(self, token: str, delay_s: float) -> None:
        async with self._http.patch(f"{self._url}/v1/jobs/{token}", json={"delay": delay_s}) as answer:
            assert answer.status == 200, await answer.text()

    async def _state(self, token: str) -> str:
        async with self._http.get(f"{self._url}/v1/jobs/{token}") as answer:
            return str((await answer.json())["state"])


async def exported(running: Fleet, process: Process) -> dict[str, float]:
    """The ledger's metrics of a process: name or flow, and value."""
    async with running.http.get(f"{process.ops_url}/metrics") as answer:
        text = await answer.text()
    found = re.findall(r'^dynein_ledger_(\w+)(?:{\w+="(\w+)"})? (\S+)$', text, re.MULTILINE)
    return {label or name: float(value) for name, label, value in found}


async def wait_for(running: Fleet, process: Process, wanted: Mapping[str, float]) -> None:
    async def has_it() -> bool:
        found = await exported(running, process)
        return all(found.get(name) == value for name, value in wanted.items())

    try:
        await until(has_it, f"the ledger has {wanted}")
    except AssertionError as error:
        table = (await running.run("ledger")).out
        raise AssertionError(f"{await exported(running, process)}\n{table}") from error


async def jobs_of_every_kind(client: Client) -> None:
    """`EXPECTED`. All are due within `AHEAD_S` and a little, in several windows.

    First come those that are cancelled or moved before they are due, last those whose queue is to be deleted before.
    """
    later = {"queue": "kept", "body": "b", "policy": "SCHEDULED", "delay": AHEAD_S}
    unstored, *cancelled = await client.submit([later] * CANCELLED)
    await client.cancel(unstored)  # its tombstone is most likely there before its trigger
    moved = await client.submit([later] * MOVED)
    await client.stored([*cancelled, *moved])
    for _ in range(2):
        await asyncio.gather(*map(client.cancel, cancelled))
    await asyncio.gather(*(client.move(token, AHEAD_S / 2) for token in moved))
    token = await client.prepare(AHEAD_S / 2)
    for _ in range(REPEATS):
        await client.submit([{"queue": "kept", "body": "b", "token": token}])
    plain: list[dict[str, Any]] = [
        {"queue": "kept", "body": "b", "policy": policy, **({} if policy == "IMMEDIATE" else {"delay": number % 10})}
        for number in range(PLAIN // 4)
        for policy in ("IMMEDIATE", "SQS_DELAYED", "SCHEDULED", "AUTO")
    ]
    await client.submit(plain)
    await client.submit([{**later, "queue": "doomed"}] * DOOMED)


async def test_it_balances_and_then_misses_what_is_lost(tmp_path: Path) -> None:
    async with fleet(tmp_path) as running:
        running.environment |= SOON
        async with running.sqs() as sqs, running.dynamodb() as dynamodb:
            await sqs.create_queue(QueueName="kept")
            doomed = (await sqs.create_queue(QueueName="doomed"))["QueueUrl"]
            api = await running.start("api")
            ingester = await running.start("ingester")
            # Two workers: one of them reads the ledger, and whichever is asked must tell.
            dispatcher = await running.start("dispatcher", DYNEIN_WORKERS="2")
            client = Client(running, api)
            await jobs_of_every_kind(client)
            await sqs.delete_queue(QueueUrl=doomed)

            balanced = {**dict(zip(FLOWS, EXPECTED, strict=True)), "gap_jobs": 0, "surplus_jobs": 0}
            await wait_for(running, dispatcher, {**balanced, "ingester": 0})
            assert "balanced" in await running.command("ledger")
            assert "gap_jobs" not in await exported(running, api), "only one process of the fleet says"

            # A process that is told to stop posts what it has counted before.
            seldom = await running.start("api", DYNEIN_LEDGER_INTERVAL_S="600", DYNEIN_LEDGER_GRACE_S="1300")
            await Client(running, seldom).submit([{"queue": "kept", "body": "b"}] * 7)
            assert await seldom.terminate() == 0
            lines = (await running.command("ledger", "--json")).splitlines()
            assert sum(json.loads(line)["counts"]["accepted"] for line in lines) == EXPECTED.accepted + 7

            # One trigger vanishes behind Dynein's back.
            job = {"queue": "kept", "body": "b", "cancellable": True, "delay": AHEAD_S}
            lost, other = await client.submit([job] * 2)
            await client.stored([lost, other])
            table = DynamoTable(dynamodb, "dynein", command_context())
            store = DynamoTriggerStore(table, WIDTH_MS)
            assert await store.remove([parse(lost).key]) == []
            one_short = {"gap_jobs": 1, "surplus_jobs": 0, "accepted": EXPECTED.accepted + 9, "ingester": 0}
            await wait_for(running, dispatcher, one_short)
            # And one process without a word: what was missing well before its last heartbeat, it cannot have sent.
            roster, heard_after_ms = DynamoRoster(table), parse(lost).key.due_at_ms + 8_000

            async def heard() -> bool:
                return min((await roster.last_seen("ingester")).values()) > heard_after_ms

            await until(heard, "the ingester has a later heartbeat")
            ingester.signal(signal.SIGKILL)
            await wait_for(running, dispatcher, {**one_short, "uncertain_jobs": 0, "ingester": 1})
            report = await running.run("ledger")
            assert report.code == 1, report
            assert "1 job missing, 0 too many" in report.out
            assert [await process.terminate() for process in (dispatcher, api)] == [0, 0]
