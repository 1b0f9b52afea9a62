"""The commands about single jobs: ``submit``, ``get``, ``cancel`` and ``move``. They call the HTTP API."""

from __future__ import annotations

import contextlib
import sys
from http import HTTPStatus
from typing import Annotated, Any, NoReturn

import msgspec
import typer

from dynein.cli.output import print_job, print_json, problem_sentence
from dynein.core.http_url import http_url_problem
from dynein.core.job import Policy
from dynein.runtime.clock import SystemClock
from dynein.runtime.proxies import Proxy, proxy_of
from dynein.server.failure import print_sentence
from dynein.settings import URL_VARIABLE

Json = Annotated[bool, typer.Option("--json", help="Print JSON, an object a line, for programs.")]
ApiUrl = Annotated[
    str | None,
    typer.Option(
        "--url",
        envvar=URL_VARIABLE,
        help="URL of the Dynein API. Default: that of the `dynein dev` of this directory, or http://127.0.0.1:8080.",
    ),
]
Timezone = Annotated[
    str | None, typer.Option(metavar="ZONE", help="Time zone of an --at without offset, such as Europe/Berlin.")
]
DEFAULT_URL = "http://127.0.0.1:8080"
REQUEST_TIMEOUT_S = 30


def usage_error(sentence: str) -> NoReturn:
    """The command line itself is wrong: exits 2."""
    print_sentence(sentence)
    raise typer.Exit(2)


def submit(
    queue: Annotated[str, typer.Argument(help="Destination queue: name or URL.")],
    body: Annotated[str, typer.Argument(help="Message body; - reads standard input.")],
    *,
    delay: Annotated[str | None, typer.Option(help='How long from now: "90", "15m", "3d 4h", PT2H.')] = None,
    at: Annotated[str | None, typer.Option(help="When: RFC 3339 with offset, or epoch milliseconds.")] = None,
    timezone: Timezone = None,
    policy: Annotated[
        Policy | None,
        typer.Option(case_sensitive=False, metavar="POLICY", help="AUTO, IMMEDIATE, SQS_DELAYED or SCHEDULED."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="A name to recognise the job by.")] = None,
    attribute: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="A message attribute; give it again for more.")
    ] = None,
    group: Annotated[str | None, typer.Option(help="Message group id, for FIFO queues.")] = None,
    cancellable: Annotated[
        bool, typer.Option("--cancellable", help="Allow cancelling and moving it until seconds before it is due.")
    ] = False,
    token: Annotated[str | None, typer.Option(help="A prepared token, so that a repeat is safe.")] = None,
    url: ApiUrl = None,
    json: Json = False,
) -> None:
    """Submit one job.

    Prints its token, the policy chosen and when it is due.
    """
    job: dict[str, Any] = _given(
        queue=queue,
        body=_standard_input() if body == "-" else body,
        delay=_number_or_text(delay),
        run_at=_number_or_text(at),
        timezone=timezone,
        policy=policy,
        name=name,
        message_group_id=group,
        token=token,
        attributes=dict(_key_value(a) for a in attribute) if attribute else None,
        cancellable=cancellable or None,
    )
    _call("POST", url, "/v1/jobs", job, json=json)


def get(
    token: Annotated[str, typer.Argument(help="The job's token.")], *, url: ApiUrl = None, json: Json = False
) -> None:
    """Show the state of a job."""
    _call("GET", url, f"/v1/jobs/{token}", json=json)


def cancel(
    token: Annotated[str, typer.Argument(help="The job's token.")], *, url: ApiUrl = None, json: Json = False
) -> None:
    """Cancel a job.

    Succeeds only if the job will not be delivered; otherwise prints why, and exits 1.
    """
    _call("DELETE", url, f"/v1/jobs/{token}", json=json)


def move(
    token: Annotated[str, typer.Argument(help="The job's token.")],
    *,
    delay: Annotated[str | None, typer.Option(help="New time, from now.")] = None,
    at: Annotated[str | None, typer.Option(help="New time: RFC 3339 with offset, or epoch milliseconds.")] = None,
    timezone: Timezone = None,
    url: ApiUrl = None,
    json: Json = False,
) -> None:
    """Move a scheduled job to another time.

    Prints its new token, which replaces the old one.
    """
    change = _given(delay=_number_or_text(delay), run_at=_number_or_text(at), timezone=timezone)
    _call("PATCH", url, f"/v1/jobs/{token}", change, json=json)


def _call(method: str, given_url: str | None, path: str, body: dict[str, Any] | None = None, *, json: bool) -> None:
    """Call the API and print the response; with ``json`` unchanged, also a problem. Exits 1 on a problem."""
    url = given_url or _url_of_dev() or DEFAULT_URL
    if "://" not in url:
        url = f"http://{url}"
    wrong = http_url_problem(url)
    if wrong is not None:
        usage_error(f"--url (or {URL_VARIABLE}) {url} {wrong}")
    proxy = proxy_of(url)
    status, content = _respond(method, url, path, body, proxy)
    decoded: Any = None
    with contextlib.suppress(ValueError):
        decoded = msgspec.json.decode(content)
    if not isinstance(decoded, dict) or ("token" not in decoded and "detail" not in decoded):
        _fail(f"the server at {url}{_through(proxy)} is not a Dynein API (HTTP status {status}). See --url")
    if json:
        print_json(decoded)
    if status >= HTTPStatus.MULTIPLE_CHOICES:
        _fail(problem_sentence(decoded))
    if not json:
        print_job(decoded, SystemClock().now_ms())


def _url_of_dev() -> str | None:
    """The API of the `dynein dev` that runs in this directory, which may listen on another port."""
    from dynein.cli.running_dev import running_dev  # noqa: PLC0415 - not with --url

    found = running_dev()
    return None if found is None else found["url"]


def _respond(method: str, url: str, path: str, body: dict[str, Any] | None, proxy: Proxy | None) -> tuple[int, bytes]:
    """Status and content of the response. Exits with a sentence when there is none."""
    import httpx  # noqa: PLC0415 - not needed by the other commands

    try:
        # The proxy is given, not left to the environment, so that an error can name it.
        tls = any(used.startswith("https") for used in (url, proxy.url if proxy is not None else ""))
        with httpx.Client(
            proxy=None if proxy is None else proxy.url,
            verify=httpx.create_ssl_context() if tls else False,
            trust_env=False,
            timeout=REQUEST_TIMEOUT_S,
        ) as http:
            response = http.request(method, url.rstrip("/") + path, json=body)
            return response.status_code, response.content
    except UnicodeEncodeError:
        usage_error("the command line has bytes that are not UTF-8: send text, or an API request with body_base64")
    except httpx.TimeoutException:
        _fail(
            f"{url} did not respond{_through(proxy)} within {REQUEST_TIMEOUT_S} s. The request may have taken effect "
            "all the same"
        )
    except httpx.HTTPError as error:
        fix = "Is `dynein serve` or `dynein dev` running there? See --url"
        if proxy is not None:
            fix = f"Correct {proxy.variable}, or list the host in NO_PROXY"
        _fail(f"{url} does not respond{_through(proxy)} ({str(error) or type(error).__name__}). {fix}")
    except (httpx.InvalidURL, ImportError, OSError, ValueError) as error:
        # A kind of proxy, or a file of certificates, that cannot be used.
        usage_error(f"{url} cannot be called{_through(proxy)}: {str(error).rstrip('.')}")


def _through(proxy: Proxy | None) -> str:
    return "" if proxy is None else f" through {proxy}"


def _given(**fields: Any) -> dict[str, Any]:  # noqa: ANN401 - option values of any type
    return {name: value for name, value in fields.items() if value is not None}


def _standard_input() -> str:
    try:
        return sys.stdin.buffer.read().decode("utf-8")
    except UnicodeDecodeError as error:
        usage_error(f"standard input is not UTF-8 (byte {error.start}): convert it, for example with iconv")


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
        usage_error(f"--attribute {text}: write key=value")
    return key, value


def _fail(sentence: str) -> NoReturn:
    print_sentence(sentence)
    raise typer.Exit(1)
