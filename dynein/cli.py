"""The ``dynein`` command line."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any, NoReturn

import httpx
import typer

from dynein import __version__
from dynein.clock import SystemClock
from dynein.console import arrival_line, err, out, print_error, print_fields, print_json, print_report, print_steps
from dynein.errors import DyneinError, Stop
from dynein.settings import CONFIG_VARIABLE, ROLES, Settings, load_settings, reference_markdown

app = typer.Typer(
    name="dynein",
    help="Delayed jobs on SQS and DynamoDB: the right message, to the right queue, at the right time.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

Json = Annotated[bool, typer.Option("--json", help="Print JSON, an object a line, for programs.")]
ApiUrl = Annotated[str, typer.Option("--url", envvar="DYNEIN_URL", help="Where the Dynein API is.")]
DEFAULT_URL = "http://127.0.0.1:8080"


def main() -> None:
    """Entry point: errors made for people end as one sentence and exit code 1, not as a traceback."""
    try:
        app()
    except Stop as stop:
        print_error(str(stop))
        sys.exit(1)
    except DyneinError as error:
        print_error(str(error))
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
        list[str] | None, typer.Option(help=f"A role to run; give it again for more. Default: {', '.join(ROLES)}.")
    ] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on (DYNEIN_HOST).")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on (DYNEIN_PORT).")] = None,
) -> None:
    """Run roles of the service in this process until SIGTERM or Ctrl-C, then drain."""
    from dynein.service import Service  # noqa: PLC0415 - keeps `dynein submit` quick to start

    roles = list(role or ROLES)
    for wrong in [r for r in roles if r not in ROLES]:
        _usage(f"--role {wrong}: no such role; there are {', '.join(ROLES)}")
    settings = load_settings(_given(host=host, port=port))
    _run(lambda stopping: Service(settings, roles).run(stopping), settings)


@app.command()
def bootstrap(*, json: Json = False) -> None:
    """Create or verify inbound queue, dead-letter queue and table. Changes only what differs."""
    from dynein.aws import clients  # noqa: PLC0415
    from dynein.bootstrap import bootstrap as run  # noqa: PLC0415

    settings = load_settings()

    async def go() -> None:
        async with clients(settings) as aws:
            steps = await run(aws.sqs, aws.dynamodb, settings, SystemClock())
        for step in steps if json else ():
            print_json(step._asdict())
        if not json:
            print_steps(steps)

    asyncio.run(go())


@app.command()
def submit(
    queue: Annotated[str, typer.Argument(help="Destination queue: name or URL.")],
    body: Annotated[str, typer.Argument(help="Message body; - reads standard input.")],
    *,
    delay: Annotated[str | None, typer.Option(help='How long from now: "90", "15m", "3d 4h", PT2H.')] = None,
    at: Annotated[str | None, typer.Option(help="When: RFC 3339 with offset, or epoch milliseconds.")] = None,
    policy: Annotated[str | None, typer.Option(help="AUTO, IMMEDIATE, SQS_DELAYED or SCHEDULED.")] = None,
    name: Annotated[str | None, typer.Option(help="A name to recognise the job by.")] = None,
    attribute: Annotated[list[str] | None, typer.Option(help="A message attribute, key=value; repeatable.")] = None,
    group: Annotated[str | None, typer.Option(help="Message group id, for FIFO queues.")] = None,
    cancellable: Annotated[bool, typer.Option(help="Keep it where it can be cancelled until just before.")] = False,
    token: Annotated[str | None, typer.Option(help="A prepared token, so that this can be retried.")] = None,
    url: ApiUrl = DEFAULT_URL,
    json: Json = False,
) -> None:
    """Submit one job; prints its token, the policy chosen and when it is due."""
    job: dict[str, Any] = _given(
        queue=queue,
        body=sys.stdin.read() if body == "-" else body,
        delay=_number_or_text(delay),
        run_at=_number_or_text(at),
        policy=policy,
        name=name,
        message_group_id=group,
        token=token,
        attributes=dict(_key_value(a) for a in attribute) if attribute else None,
        cancellable=cancellable or None,
    )
    _show(_call("POST", url, "/v1/jobs", job), json=json)


@app.command()
def get(
    token: Annotated[str, typer.Argument(help="The job's token.")], *, url: ApiUrl = DEFAULT_URL, json: Json = False
) -> None:
    """Say where a job is."""
    _show(_call("GET", url, f"/v1/jobs/{token}"), json=json)


@app.command()
def cancel(
    token: Annotated[str, typer.Argument(help="The job's token.")], *, url: ApiUrl = DEFAULT_URL, json: Json = False
) -> None:
    """Cancel a job. Succeeds only if it will not be delivered; otherwise says why, and exits 1."""
    _show(_call("DELETE", url, f"/v1/jobs/{token}"), json=json)


@app.command()
def move(
    token: Annotated[str, typer.Argument(help="The job's token.")],
    *,
    delay: Annotated[str | None, typer.Option(help="New time, from now.")] = None,
    at: Annotated[str | None, typer.Option(help="New time: RFC 3339 with offset, or epoch milliseconds.")] = None,
    url: ApiUrl = DEFAULT_URL,
    json: Json = False,
) -> None:
    """Move a scheduled job to another time; prints its new token."""
    change = _given(delay=_number_or_text(delay), run_at=_number_or_text(at))
    _show(_call("PATCH", url, f"/v1/jobs/{token}", change), json=json)


@app.command()
def tail(
    queue: Annotated[str, typer.Argument(help="Destination queue: name or URL.")],
    *,
    keep: Annotated[bool, typer.Option(help="Give messages back instead of consuming them.")] = False,
    json: Json = False,
) -> None:
    """Consume a queue and print what arrives, and how late. Ends with Ctrl-C."""
    from dynein.aws import clients  # noqa: PLC0415
    from dynein.sqs_queue import SqsQueues  # noqa: PLC0415
    from dynein.tail import tail as follow  # noqa: PLC0415
    from dynein.telemetry import Telemetry  # noqa: PLC0415

    settings = load_settings()

    async def go(stopping: asyncio.Event) -> None:
        async with clients(settings) as aws:
            queues = SqsQueues(aws.sqs, Telemetry())
            destination = await queues.resolve(queue)
            err.print(f"consuming {destination.url}" + (" (messages are given back)" if keep else ""), style="dim")
            async for arrived in follow(queues, destination.url, queue, SystemClock(), keep=keep, stopping=stopping):
                if json:
                    print_json({**arrived._asdict(), "late_ms": arrived.late_ms})
                else:
                    out.print(arrival_line(arrived))

    _run(go, settings)


@app.command()
def audit(
    *,
    overdue: Annotated[float, typer.Option(help="Seconds past its due time from which a trigger is overdue.")] = 60.0,
    repair: Annotated[bool, typer.Option(help="Put stranded triggers back on their way.")] = False,
    json: Json = False,
) -> None:
    """Read the whole store; report what is stranded, overdue or undecodable. Exits 1 if anything is wrong."""
    from dynein.operations import run_audit  # noqa: PLC0415

    report = asyncio.run(run_audit(load_settings(), overdue_s=overdue, repair=repair, quiet=json))
    if json:
        print_json({**report._asdict(), "findings": [finding._asdict() for finding in report.findings]})
    else:
        print_report(report)
    if not report.clean:
        raise typer.Exit(1)


@app.command()
def redrive(
    *,
    queue: Annotated[str | None, typer.Option(help="Only jobs for this destination.")] = None,
    reason: Annotated[str | None, typer.Option(help="Only letters whose reason contains this.")] = None,
    most: Annotated[int, typer.Option("--max", help="Stop after so many.")] = 1000,
    json: Json = False,
) -> None:
    """Send what is in the dead-letter queue to where it was meant to go."""
    from dynein.operations import run_redrive  # noqa: PLC0415

    report = asyncio.run(run_redrive(load_settings(), queue=queue, reason=reason, letters_max=most))
    if json:
        print_json(report._asdict())
    else:
        print_fields(report._asdict())


@app.command()
def settings(
    *, markdown: Annotated[bool, typer.Option(help="The reference page, as Markdown.")] = False, json: Json = False
) -> None:
    """Print the settings in force (secrets hidden), or the reference of all of them."""
    if markdown:
        typer.echo(reference_markdown(), nl=False)
        return
    in_force = load_settings().model_dump(mode="json")
    if json:
        print_json(in_force)
    else:
        print_fields(in_force)


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
    exit_after_sample: Annotated[bool, typer.Option(help="Stop once the sample jobs have arrived.")] = False,
) -> None:
    """Run everything in one process on an embedded SQS and DynamoDB, and show jobs arriving."""
    from dynein.dev import Dev  # noqa: PLC0415

    development = Dev(
        host=host, port=port, engine_port=engine_port, queue=queue, engine=engine, data=data,
        consumer=consumer, sample=sample, exit_after_sample=exit_after_sample,
    )  # fmt: skip
    _run(development.run, development.settings)


def _run(work: Callable[[asyncio.Event], Awaitable[None]], settings: Settings) -> None:
    """Run ``work`` on uvloop; the first SIGTERM or SIGINT asks it to stop, the second ends it at once."""
    from dynein.logs import configure_logging  # noqa: PLC0415

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


def _call(method: str, url: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    try:
        answer = httpx.request(method, url.rstrip("/") + path, json=body, timeout=30)
    except httpx.HTTPError as error:
        _fail(f"{url} does not answer ({error}). Is `dynein serve` or `dynein dev` running there? See --url")
    decoded: Any = None
    with contextlib.suppress(ValueError):
        decoded = answer.json()
    if not isinstance(decoded, dict):
        _fail(f"{url} answered {answer.status_code}, which is not a Dynein API's answer. See --url")
    if not answer.is_success:
        _fail(" ".join(str(decoded[part]) for part in ("title", "detail", "fix") if decoded.get(part)))
    return decoded


def _show(answer: dict[str, Any], *, json: bool) -> None:
    if json:
        print_json(answer)
    else:
        print_fields(answer)


def _given(**fields: Any) -> dict[str, Any]:  # noqa: ANN401 - option values of any type
    return {name: value for name, value in fields.items() if value is not None}


def _number_or_text(text: str | None) -> float | int | str | None:
    if text is None:
        return None
    with contextlib.suppress(ValueError):
        return int(text)
    with contextlib.suppress(ValueError):
        return float(text)
    return text


def _key_value(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        _usage(f"--attribute {text}: write key=value")
    return key, value


def _usage(sentence: str) -> NoReturn:
    print_error(sentence)
    raise typer.Exit(2)


def _fail(sentence: str) -> NoReturn:
    print_error(sentence)
    raise typer.Exit(1)
