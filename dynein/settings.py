"""Settings: from the environment (``DYNEIN_...``), else from a TOML file, else the default. Frozen once read.

Every field's description is printed in ``docs/reference/settings.md`` by ``dynein settings --markdown``; the unit is
the last part of a name (``_s``, ``_ms``, ``_bytes``). Relations between settings are checked at start.
"""

from __future__ import annotations

import difflib
import ipaddress
import os
import re
import tomllib
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from dynein.core.http_url import http_url_problem
from dynein.core.job_token import SECRET_BYTES_MIN
from dynein.core.keys import SHARDS_MAX
from dynein.core.queue_address import name_of
from dynein.errors import InvalidSettings

Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]

WORKERS_MAX = 256
ANY_HOST = "*"
NEW_TABLE_BUCKET_WIDTH_S = 60
NEW_TABLE_SHARD_COUNT = 16
_LEDGER_GRACE_MORE_S = 600.0
CONFIG_VARIABLE = "DYNEIN_CONFIG"
URL_VARIABLE = "DYNEIN_URL"
"""Where the command line finds the API. It is not a setting of a process."""
ROLES = ("api", "ingester", "dispatcher")
_SERVICE_LINK = re.compile(r"DYNEIN_(?:.*_)?(?:SERVICE_HOST|SERVICE_PORT(?:_.*)?|PORT_\d+_(?:TCP|UDP)(?:_.*)?)")
_HOST_NAME = re.compile(r"[A-Za-z0-9._-]+|\[?[0-9A-Fa-f:.]+\]?", re.ASCII)
Role = Literal["api", "ingester", "dispatcher"]


def _is_network(text: str) -> bool:
    try:
        ipaddress.ip_network(text)
    except ValueError:
        return False
    return True


def _auto_as_zero(value: object) -> object:
    return 0 if value == "auto" else value


def _http_url(text: str) -> str:
    problem = http_url_problem(text) if text else None
    if problem is not None:
        raise ValueError(problem)
    return text


EndpointUrl = Annotated[str, AfterValidator(_http_url)]


# One field a setting: they are set, printed and documented one by one.
class Settings(BaseSettings):
    """One process's settings."""

    model_config = SettingsConfigDict(env_prefix="DYNEIN_", frozen=True, extra="forbid")

    # --- AWS ------------------------------------------------------------------------------------------------------
    region: str | None = Field(None, description="AWS region. Unset: the region of the AWS SDK's own configuration.")
    endpoint_url: EndpointUrl | None = Field(
        None, description="Endpoint of an emulator that serves both SQS and DynamoDB."
    )
    sqs_endpoint_url: EndpointUrl | None = Field(
        None, description="Endpoint for SQS only; takes precedence over `endpoint_url`."
    )
    dynamodb_endpoint_url: EndpointUrl | None = Field(
        None, description="Endpoint for DynamoDB only; takes precedence over `endpoint_url`."
    )
    table: str = Field("dynein", description="DynamoDB table: triggers, shard records, roster, ledger.")
    inbound_queue: str = Field("dynein-inbound", description="SQS queue between the API and the ingesters.")
    dead_letter_queue: str = Field(
        "dynein-dead-letter", description="SQS queue for jobs that could not be delivered and for unreadable messages."
    )
    call_timeout_s: Seconds = Field(5.0, description="Time limit of an AWS call.")
    connections_max: Count = Field(
        64,
        description="Maximum number of open connections to each AWS service. Destination queues that fail have half of "
        "them at most, and one each.",
    )
    aws_client: Literal["wire", "aiobotocore"] = Field(
        "wire",
        description="Client for the calls that are made for every job. `wire`: Dynein's own, at a fraction of the CPU "
        "cost; `aiobotocore`: the AWS SDK, as for all other calls. Behind a proxy (`HTTPS_PROXY`) it is always the "
        "SDK.",
    )

    # --- Layout: recorded in the table; when set, compared with that record at start ---------------------------------
    bucket_width_s: Count | None = Field(
        None,
        description=f"Width of a time bucket in seconds. Unset: the width recorded in the table, "
        f"{NEW_TABLE_BUCKET_WIDTH_S} for a new table. It cannot be changed once the table is made.",
    )
    shard_count: Annotated[int, Field(ge=1, le=SHARDS_MAX)] | None = Field(
        None,
        description=f"Number of shards. Unset: as recorded in the table, {NEW_TABLE_SHARD_COUNT} for a new table. "
        "`dynein bootstrap` raises it while the service runs. A partition key takes 1,000 write units a second: plan "
        "one shard for each 300 jobs/s.",
    )

    # --- API ------------------------------------------------------------------------------------------------------
    host: str = Field("127.0.0.1", description="Address to listen on. In a container: 0.0.0.0.")
    port: Annotated[int, Field(ge=0, le=65535)] = Field(8080, description="Port of the API. 0: any free port.")
    ops_port: Annotated[int, Field(ge=0, le=65535)] | None = Field(
        None,
        description="Port of probes and metrics (`/healthz`, `/readyz`, `/metrics`), so that the API's port serves the "
        "API only, and a process without the `api` role has this port only. In the Kubernetes manifests: 8081. Unset: "
        "the API's port serves them too. 0: any free port.",
    )
    token_secrets: SecretStr | None = Field(
        None,
        description="Secrets that sign job tokens and what Dynein writes to its own queues, comma-separated; required "
        "for every role, for `dynein redrive` and for `dynein audit --repair`, and the same for all. The first signs, "
        f"all verify. At least {SECRET_BYTES_MIN} bytes each.",
    )
    allowed_hosts: str = Field(
        "",
        description="Names that callers may address the API by (header `Host`), separated by commas; `*`: any. Unset: "
        "on a loopback address only names of loopback, so that a web page cannot reach it under a name of its own; on "
        "other addresses any. Loopback's names are always accepted; addresses too, unless `DYNEIN_HOST` is loopback.",
    )
    message_bytes_max: Annotated[int, Field(ge=8192, le=1048576)] = Field(
        262144,
        description="Most bytes in one call to SQS, but for a single message that is larger; and the largest message "
        "for a queue whose own `MaximumMessageSize` cannot be read.",
    )
    request_bytes_max: Count = Field(16 * 1024 * 1024, description="Largest HTTP request body.")
    http_connections_max: Count = Field(
        10_000,
        description="Maximum number of HTTP connections open at once to one process, or what `ulimit -n` leaves room "
        "for. Beyond it, idle ones are closed for new ones, and if none is idle, new ones wait.",
    )
    caller_rate_per_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(
        0.0,
        description="Maximum requests a second from one caller (its address) to one process; a body costs one request "
        "more for each 4 KiB. 0: no limit but a fair share when there is more to do than can be done.",
    )
    caller_burst_s: Seconds = Field(2.0, description="For how many seconds' worth of requests a caller may be ahead.")
    destination_rate_per_s: Annotated[float, Field(ge=0)] = Field(
        0.0,
        description="Maximum jobs a second that one process accepts for one destination; what is more gets 429. 0: no "
        "limit.",
    )
    destination_burst_s: Seconds = Field(
        2.0, description="For how many seconds' worth of jobs the jobs of a destination may be ahead of that rate."
    )
    trusted_proxies: str = Field(
        "",
        description="Networks of proxies whose `X-Forwarded-For` says who the caller is, separated by commas: "
        "`10.0.0.0/8`. Of others it is ignored.",
    )
    batch_jobs_max: Count = Field(1000, description="Maximum number of jobs in one POST /v1/jobs/batch.")
    delay_max_days: Count = Field(3660, description="How far ahead a job may be scheduled.")
    destination_cache_s: Seconds = Field(
        300.0, description="How long the result of looking up a destination queue is cached."
    )
    submit_waiting_max: Count = Field(
        20_000,
        description="Maximum number of jobs waiting to be sent to one queue; beyond it the API responds with 503.",
    )
    submit_in_flight_max: Count = Field(
        8, description="Maximum number of concurrent calls from one API process to one queue."
    )
    pack_bytes_max: Annotated[int, Field(ge=1024)] = Field(
        61440, description="Target size of a packed inbound message; SQS bills by 64 KiB chunk."
    )

    # --- Ingester -------------------------------------------------------------------------------------------------
    ingest_rate_per_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] = Field(
        10_000.0,
        description="Jobs a second that the whole fleet takes from the inbound queue; each of n live ingesters takes "
        "one n-th of it.",
    )
    ingest_receivers: Count = Field(4, description="Concurrent receive calls of one ingester.")
    receive_wait_s: Annotated[int, Field(ge=0, le=20)] = Field(
        5,
        description="Long-poll time of a receive. A longer one costs fewer requests when idle; draining waits for it.",
    )
    visibility_timeout_s: Annotated[int, Field(ge=5, le=43200)] = Field(
        15,
        description="Visibility timeout of inbound messages; an ingester extends it while it works on one. After a "
        "crash, another ingester receives the message when it ends.",
    )
    hold_window_s: Seconds = Field(
        7.0,
        description="A job that is due within this time when an ingester receives it is not stored, but held in the "
        "ingester's memory and sent at its due millisecond.",
    )
    held_jobs_max: Count = Field(
        20_000,
        description="Maximum number of jobs held in one ingester's memory. At the maximum it stores those that are due "
        "latest and stops receiving, and jobs with short delays may be late. The default suffices for 2,900 jobs a "
        "second for each ingester if all are SCHEDULED with a delay of `DYNEIN_HOLD_WINDOW_S`. A large job counts as "
        "several: one for each 4 KiB.",
    )

    # --- Dispatcher -----------------------------------------------------------------------------------------------
    lease_ttl_s: Seconds = Field(
        10.0,
        description="Duration of a lease. When a shard's owner has not renewed it for this long, by the monotonic "
        "clock of another dispatcher, that dispatcher may take it.",
    )
    tick_s: Seconds = Field(
        1.0,
        description="How often each lease is renewed, its read mark raised and due triggers read. It costs one write "
        "unit and one read unit for each shard and tick.",
    )
    read_ahead_s: Seconds = Field(
        4.0,
        description="How far the read mark is ahead of the current time. A job that is due before the mark can no "
        "longer be cancelled; its trigger is read a tick later.",
    )
    read_ahead_jobs_max: Count = Field(
        50_000,
        description="Maximum number of triggers in one dispatcher's memory. A large one counts as several: one for "
        "each 4 KiB.",
    )
    page_jobs_max: Count = Field(250, description="Maximum number of triggers in a Query page.")
    clock_skew_max_s: Seconds = Field(
        300.0,
        description="How far any machine's clock may be from AWS's. The default is what AWS tolerates: it refuses "
        "requests that are signed with a time more than five minutes off. Lower it only where something else stops a "
        "machine whose clock is wrong.",
    )
    retire_grace_s: Seconds = Field(
        600.0,
        description="How long after its end a time bucket is still read. At least twice `DYNEIN_CLOCK_SKEW_MAX_S`: one "
        "machine's clock may be ahead and another's behind.",
    )

    observe_interval_s: Seconds = Field(
        15.0,
        description="How often the observer (one dispatcher of the fleet) asks SQS for the depth of the inbound and "
        "the dead-letter queue, for the metrics.",
    )
    forecast_interval_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(
        60.0,
        description="How often the observer counts the jobs that are due in the coming minutes, for the metrics. "
        "0: never.",
    )
    forecast_read_units_max: Count = Field(
        4_000,
        description="DynamoDB read units after which one such count stops; shards not counted are estimated. It stops "
        "at the end of a page, which can cost 128. A quiet table of 16 shards takes 240.",
    )

    # --- Delivery (dispatcher and ingester) -------------------------------------------------------------------------
    lane_waiting_max: Count = Field(
        5_000,
        description="Maximum number of due jobs in memory for one destination queue; further ones stay in the store.",
    )
    lane_in_flight_max: Count = Field(
        8, description="Concurrent calls to one standard destination queue. (FIFO: always 1.)"
    )
    backoff_first_s: Seconds = Field(
        0.1, description="First pause after a send to a destination fails; it doubles, with jitter."
    )
    backoff_max_s: Seconds = Field(15.0, description="Longest pause between attempts to send to a failing destination.")
    retry_budget_s: Seconds = Field(
        300.0,
        description="When a destination has failed for longer than this, its jobs are moved to the dead-letter queue.",
    )

    # --- Ledger -----------------------------------------------------------------------------------------------------
    ledger_interval_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(
        30.0,
        description="How often a process posts its counts to the conservation ledger; a process that is killed loses "
        "the counts of up to this time. It costs two write units for each window posted. 0: no ledger is kept.",
    )
    ledger_window_s: Count = Field(
        3600,
        description="Length of a ledger window; jobs due within one are counted together. It must be the same for all "
        "processes; a change begins a new ledger.",
    )
    ledger_grace_s: Seconds | None = Field(
        None,
        description="How long after its end a window must balance. Unset: `retry_budget_s` and 10 minutes.",
    )

    # --- Process --------------------------------------------------------------------------------------------------
    workers: Annotated[int, BeforeValidator(_auto_as_zero), Field(ge=0, le=WORKERS_MAX)] = Field(
        1,
        description="Number of worker processes that `dynein serve` runs; they share port, ingest rate and shards. 0 "
        "or `auto`: one for each usable core. Bounds and connections are per process.",
    )
    member_ttl_s: Seconds = Field(
        8.0,
        description="When a process has sent no heartbeat to the roster for this long, it is no longer counted as a "
        "member, and gets no share of shards and ingest rate.",
    )
    linger_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(
        0.0,
        description="How long after SIGTERM the API still accepts jobs while /readyz fails, so that load balancers "
        "notice before the port closes. In Kubernetes: 5.",
    )
    drain_s: Seconds = Field(
        25.0, description="Time limit of the drain after SIGTERM; Kubernetes' grace period must exceed it."
    )
    log_format: Literal["console", "json"] = Field(
        "console", description="Format of log lines: `console` for people, `json` for programs."
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="Lowest level logged.")
    otel: bool = Field(
        False,
        description="Create OpenTelemetry spans of submits and deliveries (needs `pip install 'dynein[otel]'`). "
        "Exporter and sampling are configured by the standard `OTEL_...` variables.",
    )

    @model_validator(mode="after")
    def _relations(self) -> Self:
        for holds, relation, purpose in self._timing():
            _require(holds, f"{relation}, {purpose}")
        _require(
            self.ledger_grace_s is None or self.ledger_grace_s >= self.retry_budget_s + 2 * self.ledger_interval_s,
            "ledger_grace_s must be at least retry_budget_s + 2 * ledger_interval_s, or jobs still being retried "
            "count as lost",
        )
        _require(
            self.ops_port is None or self.ops_port == 0 or self.ops_port != self.port,
            "ops_port must differ from port; unset it to serve probes and metrics on the API's port",
        )
        _require(self.linger_s < self.drain_s, "linger_s must be less than drain_s")
        _require(self.pack_bytes_max <= self.message_bytes_max, "pack_bytes_max must not exceed message_bytes_max")
        for network in self.trusted_proxy_networks:
            _require(_is_network(network), f"trusted_proxies: {network!r} is no network; write 10.0.0.0/8, 192.0.2.7")
        for name in self.allowed_host_names:
            _require(
                name == ANY_HOST or _HOST_NAME.fullmatch(name) is not None,
                f"allowed_hosts: {name!r} is no host name; write dynein.example.com, without scheme and port",
            )
        for secret in self.secrets:
            _require(
                len(secret) >= SECRET_BYTES_MIN,
                f"every secret in token_secrets needs {SECRET_BYTES_MIN} bytes or more; "
                "make one with: python -c 'import secrets; print(secrets.token_urlsafe(32))'",
            )
        return self

    def _timing(self) -> Iterator[tuple[bool, str, str]]:
        """Relations between durations: whether each holds, what it is, and what it is for, with the fix."""
        renewals_s = 2 * self.tick_s + self.call_timeout_s
        yield (
            self.lease_ttl_s > renewals_s,
            f"lease_ttl_s ({self.lease_ttl_s:g}) must exceed 2 * tick_s + call_timeout_s ({renewals_s:g})",
            "or one slow renewal loses every lease: raise lease_ttl_s, or lower tick_s or call_timeout_s",
        )
        heartbeat_s = 4 / 3 * self.call_timeout_s
        yield (
            self.member_ttl_s > heartbeat_s,
            f"member_ttl_s ({self.member_ttl_s:g}) must exceed 4/3 * call_timeout_s ({heartbeat_s:g})",
            "or a live process loses its share by one slow heartbeat: raise member_ttl_s, or lower call_timeout_s",
        )
        yield (
            self.member_ttl_s <= self.lease_ttl_s,
            f"member_ttl_s ({self.member_ttl_s:g}) must not exceed lease_ttl_s ({self.lease_ttl_s:g})",
            "or nobody takes a dead process's shards when they may: lower member_ttl_s, or raise lease_ttl_s",
        )
        ticks_s = 3 * self.tick_s
        yield (
            self.read_ahead_s >= ticks_s,
            f"read_ahead_s ({self.read_ahead_s:g}) must be at least 3 * tick_s ({ticks_s:g})",
            "or jobs are read late: raise read_ahead_s, or lower tick_s",
        )
        ahead_s = self.read_ahead_s + 2.0
        yield (
            self.hold_window_s >= ahead_s,
            f"hold_window_s ({self.hold_window_s:g}) must be at least read_ahead_s + 2 ({ahead_s:g})",
            "or a trigger is stored after its range was read: raise hold_window_s, or lower read_ahead_s",
        )
        held_s, visible_s = self.hold_window_s + self.call_timeout_s, self.visibility_timeout_s
        yield (
            visible_s > held_s,
            f"visibility_timeout_s ({visible_s}) must exceed hold_window_s + call_timeout_s ({held_s:g})",
            "or held jobs are received twice: raise visibility_timeout_s, or lower one of the others",
        )
        leases_s = 4 * self.lease_ttl_s
        yield (
            self.retire_grace_s >= leases_s,
            f"retire_grace_s ({self.retire_grace_s:g}) must be at least 4 * lease_ttl_s ({leases_s:g})",
            "or a bucket may be closed before a takeover has read it: raise retire_grace_s, or lower lease_ttl_s",
        )
        skew_s = 2 * self.clock_skew_max_s
        yield (
            self.retire_grace_s >= skew_s,
            f"retire_grace_s ({self.retire_grace_s:g}) must be at least 2 * clock_skew_max_s ({skew_s:g})",
            "or a job that a slow clock stores is never read: raise retire_grace_s, or keep the clocks closer",
        )

    @property
    def ledger_grace_in_force_s(self) -> float:
        """`ledger_grace_s`, or its default."""
        return self.retry_budget_s + _LEDGER_GRACE_MORE_S if self.ledger_grace_s is None else self.ledger_grace_s

    def require_secrets(self, why: str) -> None:
        """Raise `InvalidSettings` if there is no secret. ``why``: who needs it, and for what."""
        if not self.secrets:
            raise InvalidSettings(
                f"DYNEIN_TOKEN_SECRETS is needed {why}. It is the same for every process and command of a deployment; "
                "for a new one, make it with: python -c 'import secrets; print(secrets.token_urlsafe(32))'"
            )

    @property
    def own_queues(self) -> frozenset[str]:
        """Names of the queues that only Dynein itself may send to or read from."""
        return frozenset({name_of(self.inbound_queue), name_of(self.dead_letter_queue)})

    @property
    def allowed_host_names(self) -> list[str]:
        """`allowed_hosts`, split."""
        return [name.strip() for name in self.allowed_hosts.split(",") if name.strip()]

    @property
    def trusted_proxy_networks(self) -> list[str]:
        """`trusted_proxies`, split."""
        return [network.strip() for network in self.trusted_proxies.split(",") if network.strip()]

    @property
    def secrets(self) -> list[bytes]:
        """`token_secrets`, split."""
        if self.token_secrets is None:
            return []
        return [part.strip().encode() for part in self.token_secrets.get_secret_value().split(",") if part.strip()]

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the signature is pydantic's
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the signature is pydantic's
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments, then environment, then the TOML file that ``DYNEIN_CONFIG`` names."""
        sources = [init_settings, env_settings]
        path = os.environ.get(CONFIG_VARIABLE)
        if path:
            sources.append(TomlConfigSettingsSource(settings_cls, Path(path)))
        return tuple(sources)


def _require(holds: bool, sentence: str) -> None:  # noqa: FBT001 - an assertion reads best like this
    if not holds:
        raise ValueError(sentence)


def load_settings(overrides: Mapping[str, Any] | None = None) -> Settings:
    """Read and check the settings. Raises `InvalidSettings` with one sentence for each that is invalid.

    A ``DYNEIN_`` variable that names no setting is an error too: a typo must not silently leave the default in place.
    """
    in_file = _check_file()
    known = {f"DYNEIN_{name.upper()}" for name in Settings.model_fields} | {CONFIG_VARIABLE, URL_VARIABLE}
    unknown = sorted(name for name in os.environ if name.upper().startswith("DYNEIN_") and name.upper() not in known)
    if any(_SERVICE_LINK.fullmatch(name.upper()) for name in unknown):
        raise InvalidSettings(
            f"{', '.join(unknown)}: Kubernetes sets these in every pod beside a Service named dynein, and with them "
            "DYNEIN_PORT. Set enableServiceLinks: false in the pod's spec"
        )
    if unknown:
        raise InvalidSettings(
            f"{', '.join(unknown)}: no such setting. The settings are listed by `dynein settings`; "
            f"unset the variable or correct its name{_did_you_mean(unknown[0], known)}"
        )
    try:
        return Settings(**dict(overrides or {}))
    except ValidationError as error:
        raise InvalidSettings("\n".join(_sentence(problem, in_file) for problem in error.errors())) from error


def _check_file() -> Collection[str]:
    """The names that the settings file gives; it must be one that can be read."""
    path = os.environ.get(CONFIG_VARIABLE)
    if not path:
        return ()
    if not Path(path).is_file():
        raise InvalidSettings(f"{CONFIG_VARIABLE} names {path}, which is not a file")
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8")).keys()
    except OSError as error:
        raise InvalidSettings(f"{CONFIG_VARIABLE} names {path}, which cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise InvalidSettings(f"{CONFIG_VARIABLE} names {path}, which is not UTF-8 (byte {error.start})") from error
    except tomllib.TOMLDecodeError as error:
        raise InvalidSettings(f"{CONFIG_VARIABLE} names {path}, which is not TOML: {error}") from error


_WANTED = {
    "bool_parsing": "write true or false",
    "bool_type": "write true or false",
    "float_parsing": "write a number",
    "float_type": "write a number",
    "finite_number": "write a finite number",
    "int_from_float": "write a whole number",
    "int_parsing": "write a whole number",
    "int_parsing_size": "write a smaller number",
    "int_type": "write a whole number",
    "string_type": "write text",
    "literal_error": "write one of {expected}",
    "greater_than": "write a number greater than {gt:g}",
    "greater_than_equal": "write a number of {ge:g} or more",
    "less_than": "write a number less than {lt:g}",
    "less_than_equal": "write a number of {le:g} or less",
}
"""What to write instead, by pydantic's type of an error."""


def _sentence(problem: Any, in_file: Collection[str]) -> str:  # noqa: ANN401 - pydantic's ErrorDetails
    """The setting, where it is set, its value, and the fix."""
    message = str(problem["msg"]).removeprefix("Value error, ")
    if not problem["loc"]:
        return message  # of `_relations`, which names the settings
    field = str(problem["loc"][0])
    variable = f"DYNEIN_{field.upper()}"
    where = f" in {os.environ.get(CONFIG_VARIABLE)}" if field in in_file and variable not in os.environ else ""
    if problem["type"] == "extra_forbidden":
        return f"{field}{where}: no such setting. Correct its name{_did_you_mean(field, Settings.model_fields)}"
    wanted = _WANTED.get(problem["type"])
    fix = message if wanted is None else wanted.format(**(problem.get("ctx") or {}))
    if "secret" in field:
        return f"{variable}{where}: {fix}"
    return f"{variable}={problem['input']}{where}: {fix}"


def _did_you_mean(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f". Did you mean {close[0]}?" if close else ""


def reference_markdown() -> str:
    """The reference page of all settings (``docs/reference/settings.md``)."""
    lines = [
        "# Settings",
        "",
        "Generated from the code by `dynein settings --markdown`. Each setting is read from its environment variable,",
        f"else from the TOML file that `{CONFIG_VARIABLE}` (or `dynein --config`) names, under the same name in lower",
        "case without the prefix. They are checked together at start; an invalid one stops the program with a sentence",
        "that names it.",
        "",
        "| environment variable | default | meaning |",
        "| --- | --- | --- |",
    ]
    for name, field in Settings.model_fields.items():
        default = "unset" if field.default is None else f"`{field.default}`"
        lines.append(f"| `DYNEIN_{name.upper()}` | {default} | {field.description} |")
    return "\n".join(lines) + "\n"
