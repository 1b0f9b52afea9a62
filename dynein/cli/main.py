"""The ``dynein`` command line."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from dynein import __version__
from dynein.cli.jobs import Json, cancel, get, move, submit, usage_error
from dynein.cli.ledger import ledger
from dynein.cli.output import (
    arrival_line,
    err,
    out,
    print_audit,
    print_fields,
    print_json,
    print_redrive,
    print_steps,
)
from dynein.errors import DyneinError
from dynein.runtime.clock import SystemClock
from dynein.server.failure import print_failure
from dynein.server.workers.cores import usable_cores
from dynein.settings import CONFIG_VARIABLE, ROLES, Settings, load_settings, reference_markdown

app = typer.Typer(
    name="dynein",
    help="Delayed jobs on SQS and DynamoDB: the right message, to the right queue, at the right time.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

TAIL_WAIT_S = 1
"""Ctrl-C waits for the poll under way: cutting it off would hide the messages it was about to bring for a while."""


def main() -> None:
    """Entry point: errors made for people end as one sentence and exit code 1, not as a traceback."""
    try:
        app()
    except DyneinError as error:
        print_failure(error)
        sys.exit(1)


def _version(wanted: bool) -> None:  # noqa: FBT001 - typer's callback signature
    if wanted:
        typer.echo(f"dynein {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    config: Annotated[Path | None, typer.Option(help="TOML file of settings; the environment wins over it.")] = None,
) -> None:
    del version
    if config is not None:
        os.environ[CONFIG_VARIABLE] = str(config)


@app.command()
def serve(
    role: Annotated[
        list[str] | None,
        typer.Option(metavar="ROLE", help=f"A role to run; give it again for more. Default: {', '.join(ROLES)}."),
    ] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on (DYNEIN_HOST).")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on (DYNEIN_PORT).")] = None,
    workers: Annotated[
        str | None,
        typer.Option(metavar="N", help="Processes that share port and work; auto: one a core (DYNEIN_WORKERS)."),
    ] = None,
) -> None:
    """Run roles of the service.

    Until SIGTERM or Ctrl-C: it then finishes or hands over what it has in hand. A second one ends it at once.
    """
    roles = list(role or ROLES)
    for wrong in [r for r in roles if r not in ROLES]:
        usage_error(f"--role {wrong}: no such role; there are {', '.join(ROLES)}")
    given = _given(host=host, port=port)
    settings = load_settings({**given, **_given(workers=workers)})
    processes = settings.workers or usable_cores()
    if processes > 1:
        from dynein.observability.logs import configure_logging  # noqa: PLC0415
        from dynein.server.workers.supervisor import Workers  # noqa: PLC0415

        configure_logging(settings.log_format, settings.log_level, worker="parent")
        raise typer.Exit(Workers(settings, roles, processes, given).run())
    from dynein.server.service import Service  # noqa: PLC0415 - keeps `dynein submit` quick to start

    _run(lambda stopping: Service(settings, roles).run(stopping), settings)


@app.command()
def bootstrap(*, json: Json = False) -> None:
    """Create or verify queues and table.

    Inbound queue, dead-letter queue, table, shards. Changes only what differs from the settings; run it as often as you
    like. To add shards while everything runs: DYNEIN_SHARD_COUNT=64 dynein bootstrap.
    """
    from dynein.aws.bootstrap import bootstrap as run  # noqa: PLC0415
    from dynein.aws.clients import clients  # noqa: PLC0415
    from dynein.runtime.context import command_context  # noqa: PLC0415

    settings = _settings_and_logging()

    async def go() -> None:
        async with clients(settings) as aws:
            steps = await run(aws, settings, command_context())
        for step in steps if json else ():
            print_json(step._asdict())
        if not json:
            print_steps(steps)

    asyncio.run(go())


for _command in (submit, get, cancel, move, ledger):
    app.command()(_command)


@app.command()
def tail(
    queue: Annotated[str, typer.Argument(help="Destination queue: name or URL.")],
    *,
    keep: Annotated[bool, typer.Option("--keep", help="Give messages back instead of consuming them.")] = False,
    json: Json = False,
) -> None:
    """Show what arrives on a queue, and how late.

    It consumes what it shows, unless told to --keep it. Ends with Ctrl-C.
    """
    from dynein.admin.tail import tail as follow  # noqa: PLC0415
    from dynein.aws.clients import clients  # noqa: PLC0415
    from dynein.aws.sqs import SqsQueues  # noqa: PLC0415
    from dynein.observability.telemetry import Telemetry  # noqa: PLC0415

    settings = load_settings()

    async def go(stopping: asyncio.Event) -> None:
        async with clients(settings) as aws:
            queues = SqsQueues(aws.sqs, Telemetry())
            destination = await queues.resolve(queue)
            doing = "showing, and giving back, what is on" if keep else "consuming"
            err.print(Text(f"{doing} {destination.url}; Ctrl-C stops", style="dim"))
            arrivals = follow(
                queues, destination.url, queue, SystemClock(), keep=keep, stopping=stopping, wait_s=TAIL_WAIT_S
            )
            async for arrived in arrivals:
                if json:
                    print_json({**arrived._asdict(), "late_ms": arrived.late_ms})
                else:
                    out.print(arrival_line(arrived))

    _run(go, settings)


@app.command()
def audit(
    *,
    overdue: Annotated[float, typer.Option(help="Seconds past its due time from which a trigger is overdue.")] = 60.0,
    repair: Annotated[bool, typer.Option("--repair", help="Put stranded triggers back on their way.")] = False,
    json: Json = False,
) -> None:
    """Look for what should not be in the store.

    Reads all of it (which costs read units), and reports triggers that are stranded, overdue or undecodable. Exits 1 if
    anything stays stranded or undecodable; an overdue trigger will be sent by itself.
    """
    from dynein.cli.operations import run_audit  # noqa: PLC0415

    report = asyncio.run(run_audit(_settings_and_logging(), overdue_s=overdue, repair=repair, quiet=json))
    if json:
        print_json({**report._asdict(), "findings": [finding._asdict() for finding in report.findings]})
    else:
        print_audit(report)
    if not report.clean:
        raise typer.Exit(1)


@app.command()
def redrive(
    *,
    queue: Annotated[str | None, typer.Option(help="Only jobs for this destination.")] = None,
    reason: Annotated[str | None, typer.Option(help="Only letters whose reason contains this.")] = None,
    most: Annotated[int, typer.Option("--max", min=1, help="Stop after so many.")] = 1000,
    json: Json = False,
) -> None:
    """Send dead letters to where they were meant to go.

    Reads the dead-letter queue; what cannot be sent stays there. Exits 1 if anything could not be sent.
    """
    from dynein.cli.operations import run_redrive  # noqa: PLC0415

    in_force = _settings_and_logging()
    report = asyncio.run(run_redrive(in_force, queue=queue, reason=reason, letters_max=most, quiet=json))
    if json:
        print_json(report._asdict())
    else:
        print_redrive(report)
    if report.failed:
        raise typer.Exit(1)


@app.command()
def settings(
    *,
    markdown: Annotated[bool, typer.Option("--markdown", help="The reference of all settings, as Markdown.")] = False,
    json: Json = False,
) -> None:
    """Print the settings in force, secrets hidden."""
    if markdown:
        typer.echo(reference_markdown(), nl=False)
        return
    in_force = load_settings().model_dump(mode="json")
    if json:
        print_json(in_force)
    else:
        print_fields(in_force)


@app.command()
def metrics() -> None:
    """Print the reference of all metrics, as Markdown."""
    from dynein.observability.metrics.reference import reference_page  # noqa: PLC0415
    from dynein.observability.telemetry import Telemetry  # noqa: PLC0415

    typer.echo(reference_page(Telemetry().declared), nl=False)


@app.command()
def dev(
    *,
    host: Annotated[str, typer.Option(help="Address for everything.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, help="Port of the API.")] = 8080,
    engine_port: Annotated[int, typer.Option(min=1, help="Port of the embedded SQS and DynamoDB.")] = 4566,
    queue: Annotated[str, typer.Option(help="Sample destination queue.")] = "demo",
    engine: Annotated[str, typer.Option(help="Embedded engine: auto, roto or moto.")] = "auto",
    data: Annotated[Path, typer.Option(help="Where the engine keeps its data.")] = Path(".dynein"),
    consumer: Annotated[bool, typer.Option(help="Consume the sample queue and show what arrives.")] = True,
    sample: Annotated[bool, typer.Option(help="Submit one small job of each policy.")] = True,
    exit_after_sample: Annotated[
        bool, typer.Option("--exit-after-sample", help="Stop once the sample jobs have arrived.")
    ] = False,
) -> None:
    """Try it out: everything in one process.

    On an embedded SQS and DynamoDB, which keep their data over a restart. Submits sample jobs and shows them arriving.
    """
    from dynein.cli.dev import Dev  # noqa: PLC0415

    development = Dev(
        host=host, port=port, engine_port=engine_port, queue=queue, engine=engine, data=data,
        consumer=consumer, sample=sample, exit_after_sample=exit_after_sample,
    )  # fmt: skip
    _run(development.run, development.settings)


def _settings_and_logging() -> Settings:
    from dynein.observability.logs import configure_logging  # noqa: PLC0415 - keeps `dynein submit` quick to start

    settings = load_settings()
    configure_logging(settings.log_format, settings.log_level)
    return settings


def _run(work: Callable[[asyncio.Event], Awaitable[None]], settings: Settings) -> None:
    """Run ``work`` on uvloop; the first SIGTERM or SIGINT asks it to stop, the second ends it at once."""
    from dynein.observability.logs import configure_logging  # noqa: PLC0415

    configure_logging(settings.log_format, settings.log_level)

    async def go() -> None:
        stopping = asyncio.Event()
        loop = asyncio.get_running_loop()

        def stop(number: int) -> None:
            if stopping.is_set():
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)
            stopping.set()

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop, number)
        await work(stopping)

    try:
        import uvloop  # noqa: PLC0415
    except ImportError:
        asyncio.run(go())
    else:
        uvloop.run(go())


def _given(**fields: Any) -> dict[str, Any]:  # noqa: ANN401 - option values of any type
    return {name: value for name, value in fields.items() if value is not None}
