"""The how-to `docs/how-to/restore.md`, carried out on an engine: an export, a loss, and the jobs brought back."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiobotocore.session import get_session

from tests.acceptance.fleet import QUICK, REGION, Fleet, fleet, now_ms, until
from tests.acceptance.test_bootstrap import refusal
from tests.acceptance.test_cli import make_queue, receive
from tests.export_files import write_export

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Fleet]:
    async with fleet(tmp_path_factory.mktemp("restore")) as made:
        made.environment |= QUICK
        process = await made.start("api", "ingester", "dispatcher")
        made.environment["DYNEIN_URL"] = process.url
        yield made


def dynamodb(running: Fleet) -> Any:
    return get_session().create_client(
        "dynamodb", region_name=REGION, endpoint_url=running.endpoint, aws_access_key_id="a", aws_secret_access_key="b"
    )


async def submitted(running: Fleet, body: str, delay: str) -> str:
    """The token of a job that is stored."""
    job = json.loads(
        await running.command("submit", "restored", body, "--delay", delay, "--policy", "SCHEDULED", "--json")
    )

    async def stored() -> bool:
        return '"state":"scheduled"' in await running.command("get", job["token"], "--json")

    await until(stored, "the job is stored")
    return str(job["token"])


async def test_what_was_lost_comes_back_and_only_that(running: Fleet, tmp_path: Path) -> None:
    url = await make_queue(running, "restored")
    lost, kept, cancelled = [await submitted(running, body, "2h") for body in ("lost", "kept", "cancelled")]

    async with dynamodb(running) as client:
        items = (await client.scan(TableName="dynein", ConsistentRead=True))["Items"]
        write_export(tmp_path / "export", items, now_ms())
        await running.command("cancel", cancelled)
        [gone] = [item for item in items if item.get("tk", {}).get("S") == lost]
        await client.delete_item(TableName="dynein", Key={"pk": gone["pk"], "sk": gone["sk"]})

    audited = json.loads(
        await running.command("audit", "--export", str(tmp_path / "export"), "--json", DYNEIN_ENDPOINT_URL="")
    )
    assert [(pending["queue"], pending["jobs"]) for pending in audited["pending"]] == [("restored", 3)]
    assert audited["counts"] == {"stranded": 0, "overdue": 0, "undecodable": 0}
    assert "3" in await running.command("audit", "--export", str(tmp_path / "export"))

    wanted = {"restored": 1, "in the table already": 1, "cancelled or moved since": 1}
    planned = json.loads(await running.command("restore", str(tmp_path / "export"), "--dry-run", "--json"))
    assert (planned["outcomes"], planned["complete"], planned["dry_run"]) == (wanted, True, True)
    done = json.loads(await running.command("restore", str(tmp_path / "export"), "--queue", "restored", "--json"))
    assert done["outcomes"] == wanted

    async def there_again() -> bool:
        again = json.loads(await running.command("restore", str(tmp_path / "export"), "--json"))
        return bool(again["outcomes"].get("in the table already") == 2)

    await until(there_again, "the job is stored again, and a repeat finds it")
    for token in (lost, kept):
        assert '"state":"scheduled"' in await running.command("get", token, "--json")
    await running.command("move", lost, "--delay", "1s")
    assert (await receive(running, url))["Body"] == "lost"


async def test_what_is_no_export_is_said_to_be_so(running: Fleet, tmp_path: Path) -> None:
    assert "manifest-summary.json is missing" in refusal(await running.run("audit", "--export", str(tmp_path)))
    assert "manifest-summary.json is missing" in refusal(await running.run("restore", str(tmp_path)))
    assert "--repair needs the table" in refusal(await running.run("audit", "--export", "x", "--repair"), code=2)
    assert "--from " in refusal(await running.run("restore", str(tmp_path), "--from", "soon"), code=2)
