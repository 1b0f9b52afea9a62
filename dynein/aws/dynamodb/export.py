"""Reads a full export of the table from a directory: DynamoDB JSON, gzipped, as DynamoDB writes it to S3.

Source: "DynamoDB table export output format", Amazon DynamoDB Developer Guide. ``manifest-summary.json`` has the format
and the time, ``manifest-files.json`` a line for each data file with its number of items; each line of a data file is
``{"Item": {...}}``. Everything is checked: an export that was copied in part must not look like a table with fewer
jobs.
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import gzip
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import msgspec
from dynamodb_json import json_util

from dynein.aws.dynamodb.items import read_layout, read_shard
from dynein.aws.dynamodb.trigger_pages import page_of
from dynein.core.keys import DUE_MAX_MS, parse_partition_key
from dynein.core.shard_records import Layout
from dynein.core.stored_record import StoredRecord, StoredTombstone, StoredTrigger, Undecodable
from dynein.errors import FatalError

LINE_BYTES_MAX = 8 * 1024 * 1024
"""An item has 400 KB at most, which JSON can make six times that."""
RecordT = TypeVar("RecordT")
SUMMARY, FILES = "manifest-summary.json", "manifest-files.json"


class _DataFile(NamedTuple):
    path: Path
    items: int


class TableExport:
    """One export. Raises `FatalError` when it is not a whole one of a table of ours."""

    def __init__(self, directory: Path) -> None:
        self._summary = _json(directory / SUMMARY)
        _check(self._summary, directory)
        self.at_ms = _time_ms(self._summary, directory)
        """The moment that it shows."""
        self._files = list(_data_files(directory))
        self.items = sum(file.items for file in self._files)
        """Number of items, as the manifest has it."""
        self.layout = self._layout()

    def records(self) -> Iterator[StoredRecord]:
        """Every record of the trigger store and of its shards; others (roster, ledger, claims) are left out."""
        for item in self._items():
            record = self._record(item)
            if record is not None:
                yield record

    def _items(self) -> Iterator[Mapping[str, Any]]:
        for file in self._files:
            items = 0
            for where, line in _lines(file.path):
                items += 1
                yield _item(where, line)
            if items != file.items:
                raise FatalError(f"{file.path} has {items} items, its manifest says {file.items}: copy it again")

    def _layout(self) -> Layout:
        for item in self._items():
            if item["pk"] == "layout":
                return _ours(item, read_layout)
        raise FatalError("the export has no layout record: it is not one of a table of Dynein's")

    def _record(self, item: Mapping[str, Any]) -> StoredRecord | None:
        pk: str = item["pk"]
        if pk == "layout":
            return self.layout
        if pk.startswith("shard#"):
            return _ours(item, read_shard)
        place = parse_partition_key(pk)
        if place is None:
            return None
        bucket, shard = place
        page = page_of([_typed(item)], bucket, shard, self.layout.bucket_width_ms, until_ms=DUE_MAX_MS, resume=None)
        if page.triggers:
            return StoredTrigger(bucket, page.triggers[0])
        if page.tombstones:
            return StoredTombstone(bucket, page.tombstones[0])
        return Undecodable(bucket, page.undecodable[0]) if page.undecodable else None


def _ours(item: Mapping[str, Any], read: Callable[[Mapping[str, Any]], RecordT]) -> RecordT:
    try:
        return read(_typed(item))
    except (KeyError, TypeError, ValueError) as error:
        raise FatalError(f"the record {item['pk'][:40]} of the export is not one of Dynein's ({error!r})") from error


def _check(summary: Mapping[str, Any], directory: Path) -> None:
    if summary.get("outputFormat", "DYNAMODB_JSON") != "DYNAMODB_JSON":
        raise FatalError(f"{directory} is an export as {summary['outputFormat']}: export the table as DynamoDB JSON")
    if summary.get("exportType", "FULL_EXPORT") != "FULL_EXPORT":
        raise FatalError(f"{directory} is an incremental export, of changes only: make a full one")


def _time_ms(summary: Mapping[str, Any], directory: Path) -> int:
    try:
        at = dt.datetime.fromisoformat(str(summary["exportTime"]))
        return int((at if at.tzinfo is not None else at.replace(tzinfo=dt.UTC)).timestamp() * 1000)
    except (KeyError, ValueError, OverflowError) as error:
        raise FatalError(f"{directory / SUMMARY} has no exportTime that can be read ({error})") from error


def _data_files(directory: Path) -> Iterator[_DataFile]:
    for number, line in enumerate(_read(directory / FILES).splitlines(), start=1):
        where = f"{directory / FILES}, line {number}"
        entry = _decode(where, line)
        key, items = entry.get("dataFileS3Key"), entry.get("itemCount")
        if not isinstance(key, str) or not isinstance(items, int):
            raise FatalError(f"{where} names no data file with its number of items")
        path = directory / "data" / key.rsplit("/", 1)[-1]  # whatever the rest of its name in the bucket
        if not path.is_file():
            raise FatalError(f"{path} is missing: copy the whole export, such as with `aws s3 cp --recursive`")
        yield _DataFile(path, items)


def _json(path: Path) -> Mapping[str, Any]:
    return _decode(str(path), _read(path))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise FatalError(
            f"{path} is missing: name the directory of one export (AWSDynamoDB/ID in its bucket), whole. DynamoDB "
            "writes the manifests last"
        ) from error
    except OSError as error:
        raise FatalError(f"{path} cannot be read ({error.strerror})") from error


def _decode(where: str, raw: bytes) -> Mapping[str, Any]:
    try:
        found = msgspec.json.decode(raw)
    except (ValueError, RecursionError) as error:
        raise FatalError(f"{where} is not JSON ({error})") from error
    if not isinstance(found, dict):
        raise FatalError(f"{where} is not a JSON object")
    return found


def _lines(path: Path) -> Iterator[tuple[str, bytes]]:
    """The lines of a gzipped file, each with where it is. None is read past `LINE_BYTES_MAX`."""
    number = 0
    try:
        with gzip.open(path) as file:
            while line := file.readline(LINE_BYTES_MAX + 1):
                number += 1
                if len(line) > LINE_BYTES_MAX:
                    raise FatalError(f"{path}, line {number} has more than {LINE_BYTES_MAX} bytes, which no item has")
                if line.strip():
                    yield f"{path}, line {number}", line
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise FatalError(f"{path} is damaged after line {number} ({error}): copy it again") from error
    except OSError as error:
        raise FatalError(f"{path} cannot be read ({error.strerror or error})") from error


def _item(where: str, line: bytes) -> Mapping[str, Any]:
    """One item with plain values; binary ones are base64 text still."""
    try:
        found = json_util.loads(line.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise FatalError(f"{where} is not DynamoDB JSON ({error})") from error
    item = found.get("Item") if isinstance(found, dict) else None
    if not isinstance(item, dict) or not isinstance(item.get("pk"), str):
        raise FatalError(f"{where} has no item of a table of Dynein's")
    return item


def _typed(item: Mapping[str, Any]) -> dict[str, Any]:
    """As a call's response has it: what reads responses reads this too. What cannot be ours has an empty sort key."""
    typed: dict[str, Any] = {"sk": {"B": b""}}
    for name, value in item.items():
        if name == "sk":
            try:
                typed[name] = {"B": base64.b64decode(str(value), validate=True)}
            except (binascii.Error, ValueError):
                continue
        elif isinstance(value, bool | int | float):
            typed[name] = {"N": str(value)}
        elif isinstance(value, str):
            typed[name] = {"S": value}
    return typed
