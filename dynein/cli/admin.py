"""The commands of an operator: ``bootstrap``, ``tail``, ``audit``, ``restore``, ``redrive`` and ``ledger``.

They import what they need when they are called: it brings the AWS SDK along, and ``dynein submit`` should be quick.
"""
# ruff: noqa: PLC0415 - see above

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dynein.cli.jobs import Json, usage_error
from dynein.cli.output import (
    print_arrival,
    print_audit,
    print_export_audit,
    print_json,
    print_ledger,
    print_redrive,
    print_restore,
    print_steps,
)
from dynein.cli.running import operator_settings, run_until_stopped, settings_and_logging
from dynein.errors import InvalidField
from dynein.runtime.clock import SystemClock

if TYPE_CHECKING:
    from dynein.admin.audit import Report


def bootstrap(*, json: Json = False) -> None:
    """Create or verify queues and table.

    Inbound queue, dead-letter queue, table, shards. Changes only what differs from the settings; run it as often as you
    like. It sets no resource policies and no KMS key: docs/how-to/aws.md has them. To add shards while everything runs:
    DYNEIN_SHARD_COUNT=64 dynein bootstrap.
    """
    from dynein.cli.operations import run_bootstrap

    steps = asyncio.run(run_bootstrap(settings_and_logging()))
    for step in steps if json else ():
        print_json(step._asdict())
    if not json:
        print_steps(steps)


def tail(
    queue: Annotated[str, typer.Argument(help="Destination queue: name or URL.")],
    *,
    keep: Annotated[bool, typer.Option("--keep", help="Give messages back instead of consuming them.")] = False,
    json: Json = False,
) -> None:
    """Show what arrives on a queue, and how late.

    Consumes the messages it shows, unless --keep is given. Ends with Ctrl-C.
    """
    from dynein.admin.tail import Arrived
    from dynein.cli.operations import run_tail

    def show(arrived: Arrived) -> None:
        if json:
            print_json({**arrived._asdict(), "late_ms": arrived.late_ms})
        else:
            print_arrival(arrived)

    settings = operator_settings()
    run_until_stopped(lambda stopping: run_tail(settings, queue, show, stopping, keep=keep), settings)


def audit(
    *,
    overdue: Annotated[float, typer.Option(help="Seconds past its due time from which a trigger is overdue.")] = 60.0,
    repair: Annotated[bool, typer.Option("--repair", help="Send stranded triggers through the inbound queue.")] = False,
    export: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Read an export of the table, in DIR, instead."),
    ] = None,
    json: Json = False,
) -> None:
    """Find triggers that are stranded, overdue or undecodable.

    Reads the whole trigger store, which costs read units. Exits 1 if any stays stranded or undecodable; overdue ones
    will still be sent.
    """
    from dynein.cli.operations import run_audit, run_export_audit

    if export is not None:
        if repair:
            usage_error("--repair needs the table itself: leave out --export. `dynein restore` sends jobs of an export")
        exported = run_export_audit(export, overdue_s=overdue)
        if json:
            pending = [each._asdict() for each in exported.pending]
            print_json({**_audit_as_json(exported.audit), "export_at_ms": exported.at_ms, "pending": pending})
        else:
            print_export_audit(exported)
        if not exported.audit.clean:
            raise typer.Exit(1)
        return

    report = asyncio.run(
        run_audit(settings_and_logging(operator_settings()), overdue_s=overdue, repair=repair, quiet=json)
    )
    if json:
        print_json(_audit_as_json(report))
    else:
        print_audit(report)
    if not report.clean:
        raise typer.Exit(1)


def _audit_as_json(report: Report) -> dict[str, Any]:
    return {**report._asdict(), "findings": [finding._asdict() for finding in report.findings]}


def restore(
    export: Annotated[Path, typer.Argument(metavar="DIR", help="Directory of one export of the table.")],
    *,
    queue: Annotated[str | None, typer.Option(help="Only jobs for this destination.")] = None,
    since: Annotated[
        str | None,
        typer.Option("--from", help="Only jobs due from then on. Default: now, so that none is repeated."),
    ] = None,
    until: Annotated[str | None, typer.Option(help="Only jobs due before this time.")] = None,
    token: Annotated[list[str] | None, typer.Option(help="Only this job; give it again for more.")] = None,
    most: Annotated[int, typer.Option("--max", min=1, help="Stop after so many jobs.")] = 100_000_000,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count: send nothing.")] = False,
    json: Json = False,
) -> None:
    """Send jobs of an export of the table through the inbound queue again.

    Each keeps its token and due time. What is in the table, or was cancelled or moved since, is left as it is, so it
    may be repeated. Jobs due between the export and now may have been delivered: --from an earlier time repeats them.
    """
    from dynein.admin.restore import Chosen
    from dynein.cli.operations import run_restore

    now_ms = SystemClock().now_ms()
    chosen = Chosen(
        now_ms if since is None else _moment(since, "--from"),
        None if until is None else _moment(until, "--until"),
        queue,
        None if token is None else frozenset(token),
    )
    settings = settings_and_logging(operator_settings())
    report = asyncio.run(run_restore(settings, export, chosen, jobs_max=most, dry_run=dry_run))
    if json:
        print_json({**report._asdict(), "complete": report.complete})
    else:
        print_restore(report)
    if not report.complete:
        raise typer.Exit(1)


def _moment(text: str, option: str) -> int:
    from dynein.api.moments import parse_run_at_ms

    try:
        return parse_run_at_ms(text)
    except InvalidField as error:
        usage_error(f"{option} {error.problem} {error.fix}")


def redrive(
    *,
    queue: Annotated[str | None, typer.Option(help="Only jobs for this destination.")] = None,
    reason: Annotated[str | None, typer.Option(help="Only dead letters whose reason contains this.")] = None,
    most: Annotated[int, typer.Option("--max", min=1, help="Stop after so many.")] = 1000,
    json: Json = False,
) -> None:
    """Send dead letters to where they were meant to go.

    Reads the dead-letter queue; what cannot be sent stays there. Exits 1 if anything could not be sent.
    """
    from dynein.admin.redrive_selection import Selection
    from dynein.cli.operations import run_redrive

    selection = Selection(queue=queue, reason=reason)
    report = asyncio.run(
        run_redrive(settings_and_logging(operator_settings()), selection, dead_letters_max=most, quiet=json)
    )
    if json:
        print_json(report._asdict())
    else:
        print_redrive(report)
    if report.failed:
        raise typer.Exit(1)


def ledger(
    *,
    hours: Annotated[float, typer.Option(min=0, help="How many hours back to show.")] = 24.0,
    json: Json = False,
) -> None:
    """Show whether every accepted job was delivered or ended otherwise.

    By window of the jobs' due times, as the processes have counted. Exits 1 if a job is missing in a closed window.
    """
    from dynein.cli.operations import run_ledger
    from dynein.core.ledger import balance_of

    rows = asyncio.run(run_ledger(operator_settings(), hours=hours))
    balance = balance_of(row.counts for row in rows if row.closed)
    for row in rows if json else ():
        print_json({**row._asdict(), "counts": row.counts._asdict(), "pending": row.counts.pending})
    if not json:
        print_ledger(rows, gap_jobs=balance.gap_jobs, surplus_jobs=balance.surplus_jobs)
    if balance.gap_jobs:
        raise typer.Exit(1)
