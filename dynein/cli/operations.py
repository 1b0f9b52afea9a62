"""What an operator runs against a deployment, with its clients opened and closed, and its progress shown."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from dynein.admin import redrive
from dynein.admin.audit import Report, audit, requeue_by
from dynein.admin.export_audit import ExportReport, audit_export, marks_of
from dynein.admin.redrive_selection import Selection
from dynein.admin.restore import Chosen, Restorer, RestoreReport, send_by
from dynein.admin.tail import Arrived, tail
from dynein.aws.bootstrap import Step, bootstrap
from dynein.aws.clients import clients
from dynein.aws.dynamodb.export import TableExport
from dynein.aws.dynamodb.layout import verify_layout
from dynein.aws.ports import aws_ledger, aws_ports, aws_queues, aws_table
from dynein.cli.output import err, print_remark
from dynein.core.job_token import TokenSigner
from dynein.core.ledger import Row, rows
from dynein.core.queue_address import name_of
from dynein.core.seal import Seal
from dynein.delivery.destinations import Destinations
from dynein.errors import FatalError
from dynein.ledger.reader import closing_by
from dynein.runtime.context import command_context
from dynein.settings import Settings

_TAIL_WAIT_S = 1
"""Ctrl-C waits for the receive under way: cancelled, it would keep the messages it receives invisible for a while."""


async def run_bootstrap(settings: Settings) -> Sequence[Step]:
    """``dynein bootstrap``."""
    async with clients(settings) as aws:
        return await bootstrap(aws, settings, command_context())


async def run_tail(
    settings: Settings, queue: str, show: Callable[[Arrived], None], stopping: asyncio.Event, *, keep: bool
) -> None:
    """``dynein tail``, until ``stopping`` is set; ``show`` is called with each message."""
    if name_of(queue) in settings.own_queues:
        raise FatalError(
            f"{queue} is one of Dynein's own queues: whoever reads it takes jobs away. See `dynein audit` and "
            "`dynein redrive`"
        )
    context = command_context()
    async with clients(settings) as aws:
        queues = aws_queues(aws, context, settings)
        destination = await queues.resolve(queue)
        doing = "showing, and giving back, what is on" if keep else "consuming"
        print_remark((f"{doing} {destination.url}; Ctrl-C stops", "dim"))
        arrivals = tail(
            queues, destination.url, queue, context.clock, keep=keep, stopping=stopping, wait_s=_TAIL_WAIT_S
        )
        async for arrived in arrivals:
            show(arrived)


async def run_audit(settings: Settings, *, overdue_s: float, repair: bool, quiet: bool) -> Report:
    """``dynein audit``; shows its progress on a terminal, unless ``quiet``."""
    if repair:
        settings.require_secrets("to sign what a repair puts on the inbound queue")
    context = command_context()
    async with clients(settings) as aws:
        table = aws_table(aws, context, settings)
        layout = await verify_layout(table, settings)
        ports = aws_ports(aws, table, layout, context, settings)
        destinations = Destinations(ports.queues, context.clock, ttl_s=settings.destination_cache_s)
        requeue = None
        if repair:
            requeue = requeue_by(ports.queues, destinations, settings.inbound_queue, Seal(settings.secrets))
        with Progress(console=err, transient=True, disable=_hidden(quiet=quiet)) as progress:
            task = progress.add_task("reading time buckets", total=None)
            return await audit(
                ports.triggers,
                ports.shards,
                context.clock,
                overdue_s=overdue_s,
                requeue=requeue,
                progress=lambda done, total: progress.update(task, completed=done, total=total),
            )


def run_export_audit(directory: Path, *, overdue_s: float) -> ExportReport:
    """``dynein audit --export``. Makes no calls."""
    export = TableExport(directory)
    return audit_export(export.records, export.at_ms, overdue_s=overdue_s)


async def run_restore(
    settings: Settings, directory: Path, chosen: Chosen, *, jobs_max: int, dry_run: bool
) -> RestoreReport:
    """``dynein restore``."""
    settings.require_secrets("to verify the jobs' tokens, and to sign what is put on the inbound queue")
    context = command_context()
    export = TableExport(directory)
    marks = marks_of(export.records)
    async with clients(settings) as aws:
        table = aws_table(aws, context, settings)
        layout = await verify_layout(table, settings)
        ports = aws_ports(aws, table, layout, context, settings)
        inbound = await ports.queues.resolve(settings.inbound_queue)
        restorer = Restorer(
            ports.triggers,
            TokenSigner(settings.secrets),
            frozenset(record.shard for record in await ports.shards.all()),
            send_by(ports.queues, inbound.url, Seal(settings.secrets), settings.pack_bytes_max),
        )
        return await restorer.restore(export.records(), marks, chosen, jobs_max=jobs_max, dry_run=dry_run)


async def run_redrive(
    settings: Settings, selection: Selection, *, dead_letters_max: int, quiet: bool
) -> redrive.Report:
    """``dynein redrive``; shows its progress on a terminal, unless ``quiet``."""
    settings.require_secrets("to verify what is on the dead-letter queue")
    context = command_context()
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    async with clients(settings) as aws:
        queues = aws_queues(aws, context, settings)
        with Progress(*columns, console=err, transient=True, disable=_hidden(quiet=quiet)) as progress:
            task = progress.add_task("reading the dead-letter queue", total=None)

            def show(so_far: redrive.Report) -> None:
                failed = sum(so_far.failed.values())
                seen = f"{so_far.examined} dead letters: {so_far.redriven} redriven, {failed} failed"
                progress.update(task, description=f"{seen}, {so_far.skipped} not selected")

            return await redrive.redrive(
                queues,
                Destinations(queues, context.clock, ttl_s=settings.destination_cache_s),
                context.clock,
                settings,
                selection=selection,
                dead_letters_max=dead_letters_max,
                on_progress=show,
            )


async def run_ledger(settings: Settings, *, hours: float) -> list[Row]:
    """``dynein ledger``: the windows closed within the last ``hours``, and those that are open and have begun."""
    context, closing = command_context(), closing_by(settings)
    async with clients(settings) as aws:
        now_ms = context.clock.now_ms()
        from_ms, _ = closing.closed(now_ms, round(hours * 3_600_000))
        windows = await aws_ledger(aws_table(aws, context, settings), context, settings).read(from_ms, now_ms + 1)
        return rows(windows, closing, now_ms)


def _hidden(*, quiet: bool) -> bool:
    return quiet or not err.is_terminal
