"""The ``dynein`` command line."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from dynein import __version__
from dynein.cli.admin import audit, bootstrap, ledger, redrive, restore, tail
from dynein.cli.jobs import Json, cancel, get, move, submit, usage_error
from dynein.cli.output import print_fields, print_json
from dynein.cli.running import run_until_stopped
from dynein.errors import DyneinError
from dynein.server.failure import print_failure
from dynein.server.workers.cores import usable_cores
from dynein.settings import CONFIG_VARIABLE, ROLES, load_settings, reference_markdown

app = typer.Typer(
    name="dynein",
    help="Delayed jobs on SQS and DynamoDB: the right message, to the right queue, at the right time.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def main() -> None:
    """Entry point: Dynein's own errors end as one sentence and exit code 1, not as a traceback."""
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
    ops_port: Annotated[
        int | None, typer.Option(help="Port of probes and metrics (DYNEIN_OPS_PORT); default: the API's.")
    ] = None,
    workers: Annotated[
        str | None,
        typer.Option(metavar="N", help="Processes that share port and work; auto: one for each core (DYNEIN_WORKERS)."),
    ] = None,
) -> None:
    """Run roles of the service.

    Until SIGTERM or Ctrl-C: it then finishes or hands over the jobs it holds. A second signal ends it at once.
    """
    roles = list(role or ROLES)
    for wrong in [r for r in roles if r not in ROLES]:
        usage_error(f"--role {wrong}: no such role; there are {', '.join(ROLES)}")
    given = _given(host=host, port=port, ops_port=ops_port)
    settings = load_settings({**given, **_given(workers=workers)})
    processes = settings.workers or usable_cores()
    if processes > 1:
        from dynein.observability.logs import configure_logging  # noqa: PLC0415
        from dynein.server.workers.supervisor import Workers  # noqa: PLC0415

        configure_logging(settings.log_format, settings.log_level, worker="parent")
        raise typer.Exit(Workers(settings, roles, processes, given).run())
    from dynein.server.service import Service  # noqa: PLC0415 - keeps `dynein submit` quick to start

    run_until_stopped(lambda stopping: Service(settings, roles).run(stopping), settings)


for _command in (bootstrap, submit, get, cancel, move, ledger, tail, audit, restore, redrive):
    app.command()(_command)


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
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the API.")] = 8080,
    engine_port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the embedded SQS and DynamoDB.")] = 4566,
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
    from dynein.cli.dev import Dev, DevOptions  # noqa: PLC0415

    options = DevOptions(host, port, engine_port, queue, engine, data, consumer, sample, exit_after_sample)
    development = Dev(options)
    run_until_stopped(development.run, development.settings)


def _given(**fields: Any) -> dict[str, Any]:  # noqa: ANN401 - option values of any type
    return {name: value for name, value in fields.items() if value is not None}
