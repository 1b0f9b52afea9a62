"""What an operator runs once against a deployment: audit, redrive, ledger; with their clients built and closed."""

from __future__ import annotations

from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from dynein.admin import redrive
from dynein.admin.audit import Report, audit, requeue_by
from dynein.aws.clients import clients
from dynein.aws.dynamodb.layout import verify_layout
from dynein.aws.dynamodb.ledger import DynamoLedger
from dynein.aws.dynamodb.shards import DynamoShardRecords
from dynein.aws.dynamodb.triggers import DynamoTriggerStore
from dynein.aws.ports import aws_table
from dynein.aws.sqs import SqsQueues
from dynein.cli.output import err
from dynein.core.ledger import Row, rows
from dynein.delivery.destinations import Destinations
from dynein.ledger.reader import closing_by
from dynein.runtime.context import command_context
from dynein.settings import Settings


async def run_audit(settings: Settings, *, overdue_s: float, repair: bool, quiet: bool) -> Report:
    """``dynein audit``; shows its progress on a terminal, unless ``quiet``."""
    context = command_context()
    clock = context.clock
    async with clients(settings) as aws:
        table = aws_table(aws, context, settings)
        layout = await verify_layout(table, settings)
        store = DynamoTriggerStore(table, layout.bucket_width_ms)
        shards = DynamoShardRecords(table)
        queues = SqsQueues(aws.sqs, context.telemetry)
        destinations = Destinations(queues, clock, ttl_s=settings.destination_cache_s)
        requeue = requeue_by(queues, destinations, settings.inbound_queue) if repair else None
        with Progress(console=err, transient=True, disable=_unseen(quiet=quiet)) as progress:
            task = progress.add_task("reading time buckets", total=None)
            return await audit(
                store,
                shards,
                clock,
                overdue_s=overdue_s,
                requeue=requeue,
                progress=lambda done, total: progress.update(task, completed=done, total=total),
            )


async def run_redrive(
    settings: Settings, *, queue: str | None, reason: str | None, letters_max: int, quiet: bool
) -> redrive.Report:
    """``dynein redrive``; shows its progress on a terminal, unless ``quiet``."""
    context = command_context()
    clock = context.clock
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    async with clients(settings) as aws:
        queues = SqsQueues(aws.sqs, context.telemetry)
        with Progress(*columns, console=err, transient=True, disable=_unseen(quiet=quiet)) as progress:
            task = progress.add_task("reading the dead-letter queue", total=None)

            def show(so_far: redrive.Report) -> None:
                failed = sum(so_far.failed.values())
                seen = f"{so_far.examined} letters: {so_far.redriven} redriven, {failed} failed"
                progress.update(task, description=f"{seen}, {so_far.skipped} not selected")

            return await redrive.redrive(
                queues,
                Destinations(queues, clock, ttl_s=settings.destination_cache_s),
                clock,
                dead_letter_queue=settings.dead_letter_queue,
                inbound_queue=settings.inbound_queue,
                selection=redrive.Selection(queue=queue, reason=reason),
                letters_max=letters_max,
                message_bytes_max=settings.message_bytes_max,
                on_progress=show,
            )


async def run_ledger(settings: Settings, *, hours: float) -> list[Row]:
    """``dynein ledger``: the windows closed within the last ``hours``, and those that are open and have begun."""
    context, closing = command_context(), closing_by(settings)
    async with clients(settings) as aws:
        store = DynamoLedger(aws_table(aws, context, settings), closing.window_ms)
        now_ms = context.clock.now_ms()
        from_ms, _ = closing.closed(now_ms, round(hours * 3_600_000))
        return rows(await store.read(from_ms, now_ms + 1), closing, now_ms)


def _unseen(*, quiet: bool) -> bool:
    return quiet or not err.is_terminal
