"""Writes items as DynamoDB's export to S3 does: gzipped DynamoDB JSON, with both manifests."""

from __future__ import annotations

import base64
import datetime as dt
import gzip
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def write_export(
    directory: Path, items: Sequence[Mapping[str, Any]], at_ms: int, *, files: int = 2, **summary: str
) -> None:
    """``items`` as the SDK has them, over some files in no order that means anything."""
    (directory / "data").mkdir(parents=True)
    lines = []
    for number in range(files):
        some = items[number::files]
        lines_of_file = "".join(json.dumps({"Item": _plain(item)}) + "\n" for item in some)
        name = f"{number:08x}.json.gz"
        (directory / "data" / name).write_bytes(gzip.compress(lines_of_file.encode()))
        lines.append(json.dumps({"itemCount": len(some), "dataFileS3Key": f"AWSDynamoDB/01700000-0/data/{name}"}))
    (directory / "manifest-files.json").write_text("\n".join(lines) + "\n")
    at = dt.datetime.fromtimestamp(at_ms / 1000, tz=dt.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    content: dict[str, Any] = {
        "version": "2020-06-30",
        "exportTime": at,
        "outputFormat": "DYNAMODB_JSON",
        "itemCount": len(items),
    }
    (directory / "manifest-summary.json").write_text(json.dumps(content | summary))


def _plain(item: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: {kind: base64.b64encode(bytes(value)).decode() if kind == "B" else value}
        for name, typed in item.items()
        for kind, value in typed.items()
    }
