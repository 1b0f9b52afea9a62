"""Exports of the table: read whole or not at all."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dynein.aws.dynamodb.export import TableExport
from dynein.aws.dynamodb.items import layout_item, shard_item, tombstone_item, trigger_item
from dynein.core.job import Job, encode_job
from dynein.core.job_token import JobRef, TokenKind, TokenSigner
from dynein.core.keys import TriggerKey
from dynein.core.shard_records import Layout, ShardRecord
from dynein.core.stored_record import StoredTombstone, StoredTrigger, Undecodable
from dynein.core.trigger import Trigger
from dynein.core.trigger_store import Tombstone
from dynein.errors import FatalError
from tests.export_files import write_export

SIGNER = TokenSigner([b"0123456789abcdef"])
WIDTH_MS = 60_000
AT_MS = 1_900_000_000_000
LAYOUT = Layout(WIDTH_MS, 2, 0)
SHARD = ShardRecord(0, "dispatcher", 3, 4, AT_MS, AT_MS, AT_MS, AT_MS // WIDTH_MS, 5)


def trigger(number: int, due_at_ms: int = AT_MS) -> Trigger:
    key = TriggerKey(due_at_ms + number, number.to_bytes(12, "big"), number % 2)
    record = encode_job(Job(queue="demo", body=f'é "{number}" 2027-06-30T12:00:00.000000'))
    return Trigger(key, SIGNER.sign(JobRef(TokenKind.SCHEDULED, key)), record)


def exported(directory: Path, *more: dict[str, Any]) -> Path:
    items = [
        trigger_item(trigger(1), WIDTH_MS),
        trigger_item(trigger(2), WIDTH_MS),
        tombstone_item(Tombstone(trigger(2).key, None), AT_MS, WIDTH_MS),
        tombstone_item(Tombstone(trigger(3).key, "ANOTHER"), AT_MS, WIDTH_MS),
        shard_item(SHARD),
        {"pk": {"S": "member#api"}, "sk": {"B": b"name"}, "beat": {"N": "1"}},
        {"pk": {"S": "ledger#3600000#1"}, "sk": {"B": b"\0" * 6}, "accepted": {"N": "7"}},
        layout_item(LAYOUT),
        *more,
    ]
    write_export(directory, items, AT_MS)
    return directory


def test_every_record_of_the_store_comes_back_whole(tmp_path: Path) -> None:
    export = TableExport(exported(tmp_path / "x"))
    assert (export.at_ms, export.items, export.layout) == (AT_MS, 8, LAYOUT)
    bucket = AT_MS // WIDTH_MS
    expected = [
        StoredTrigger(bucket, trigger(1)),
        StoredTrigger(bucket, trigger(2)),
        StoredTombstone(bucket, Tombstone(trigger(2).key, None)),
        StoredTombstone(bucket, Tombstone(trigger(3).key, "ANOTHER")),
        SHARD,
        LAYOUT,
    ]
    for _ in range(2):
        assert sorted(export.records(), key=repr) == sorted(expected, key=repr)


@pytest.mark.parametrize(
    "item",
    [
        {"sk": {"B": b"short"}},
        {"sk": {"S": "not base64!"}},
        {"sk": {"B": trigger_item(trigger(9), WIDTH_MS)["sk"]["B"]}},
        {"sk": {"B": trigger_item(trigger(9), WIDTH_MS)["sk"]["B"]}, "tk": {"S": "x"}, "job": {"N": "1"}},
        {},
    ],
)
def test_what_is_no_record_in_a_bucket_is_undecodable(item: dict[str, Any], tmp_path: Path) -> None:
    pk = {"pk": trigger_item(trigger(9), WIDTH_MS)["pk"]}
    export = TableExport(exported(tmp_path / "x", {**pk, **item}))
    assert sum(isinstance(record, Undecodable) for record in export.records()) == 1


def rewrite(path: Path, change: Callable[[str], str]) -> None:
    path.write_bytes(gzip.compress(change(gzip.decompress(path.read_bytes()).decode()).encode()))


def rewrite_all(directory: Path, change: Callable[[str], str]) -> None:
    for file in (directory / "data").iterdir():
        rewrite(file, change)


DATA = "data/00000000.json.gz"
BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "no directory": (
        lambda d: d.rename(d.with_name("elsewhere")),
        "manifest-summary.json is missing: name",
    ),
    "no summary": (lambda d: (d / "manifest-summary.json").unlink(), "manifest-summary.json is missing"),
    "no list of files": (lambda d: (d / "manifest-files.json").unlink(), "manifest-files.json is missing"),
    "a file that is missing": (lambda d: (d / DATA).unlink(), "00000000.json.gz is missing: copy the whole export"),
    "an item that is missing": (
        lambda d: rewrite(d / DATA, lambda text: text.split("\n", 1)[1]),
        "has 3 items, its manifest says 4",
    ),
    "a file that is cut": (lambda d: (d / DATA).write_bytes((d / DATA).read_bytes()[:-20]), "is damaged after line"),
    "a file that is not gzip": (lambda d: (d / DATA).write_text("{}"), "is damaged after line 0"),
    "a file with another byte": (
        lambda d: (d / DATA).write_bytes((d / DATA).read_bytes()[:40] + b"\xff\xff" + (d / DATA).read_bytes()[42:]),
        "00000000.json.gz",
    ),
    "a line that is not JSON": (
        lambda d: rewrite(d / DATA, lambda t: t.replace("{", "", 1)),
        "1 is not DynamoDB JSON",
    ),
    "a line without item": (lambda d: rewrite(d / DATA, lambda t: '{"Keys": {}}\n' + t), "line 1 has no item"),
    "an item without key": (
        lambda d: rewrite(d / DATA, lambda t: '{"Item": {"a": {"S": "b"}}}\n' + t),
        "line 1 has no item",
    ),
    "an item with an attribute B": (
        lambda d: rewrite(d / DATA, lambda t: '{"Item": {"B": {"S": "b"}, "pk": {"S": "layout"}}}\n' + t),
        "line 1 has no item",
    ),
    "a line nested too deeply": (
        lambda d: rewrite(d / DATA, lambda t: "[" * 100_000 + t),
        "1 is not DynamoDB JSON",
    ),
    "a line without end": (
        lambda d: rewrite(d / DATA, lambda _: "x" * 9_000_000),
        "has more than 8388608 bytes",
    ),
    "a manifest that is not JSON": (lambda d: (d / "manifest-files.json").write_text("x"), "line 1 is not JSON"),
    "a manifest of something else": (lambda d: (d / "manifest-files.json").write_text("[]"), "is not a JSON object"),
    "a manifest without names": (lambda d: (d / "manifest-files.json").write_text("{}"), "line 1 names no data file"),
    "a name that leads elsewhere": (
        lambda d: (d / "manifest-files.json").write_text(
            json.dumps({"itemCount": 1, "dataFileS3Key": "../../../etc/passwd"})
        ),
        "data/passwd is missing",
    ),
    "a time that is none": (
        lambda d: (d / "manifest-summary.json").write_text('{"exportTime": "soon"}'),
        "no exportTime that can be read",
    ),
    "another format": (
        lambda d: (d / "manifest-summary.json").write_text('{"outputFormat": "ION"}'),
        "is an export as ION: export the table as DynamoDB JSON",
    ),
    "changes only": (
        lambda d: (d / "manifest-summary.json").write_text('{"exportType": "INCREMENTAL_EXPORT"}'),
        "is an incremental export, of changes only: make a full one",
    ),
    "another table": (
        lambda d: rewrite_all(d, lambda text: text.replace("layout", "lay")),
        "no layout record: it is not one of a table of Dynein's",
    ),
    "a shard record of something else": (
        lambda d: rewrite_all(d, lambda text: text.replace('"fence"', '"x"')),
        "the record shard#0 of the export is not one of Dynein's",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_an_export_that_is_not_whole_or_not_ours_is_refused(name: str, tmp_path: Path) -> None:
    breaking, said = BROKEN[name]
    directory = exported(tmp_path / "x")
    breaking(directory)
    with pytest.raises(FatalError) as raised:
        list(TableExport(directory).records())
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 600
