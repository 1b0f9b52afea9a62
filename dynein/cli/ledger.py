"""``dynein ledger``."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from dynein.cli.jobs import Json
from dynein.cli.output import print_json, print_ledger
from dynein.settings import load_settings


def ledger(
    *,
    hours: Annotated[float, typer.Option(min=0, help="How far to look back.")] = 24.0,
    json: Json = False,
) -> None:
    """Show whether what was accepted has gone out.

    By window of the jobs' due times, as the processes have counted. Exits 1 if a closed window misses a job.
    """
    from dynein.cli.operations import run_ledger  # noqa: PLC0415
    from dynein.core.ledger import balance_of  # noqa: PLC0415

    rows = asyncio.run(run_ledger(load_settings(), hours=hours))
    verdict = balance_of(row.counts for row in rows if row.closed)
    for row in rows if json else ():
        print_json({**row._asdict(), "counts": row.counts._asdict(), "pending": row.counts.pending})
    if not json:
        print_ledger(rows, gap_jobs=verdict.gap_jobs, surplus_jobs=verdict.surplus_jobs)
    if verdict.gap_jobs:
        raise typer.Exit(1)
