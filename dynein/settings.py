"""Settings: from the environment (``DYNEIN_...``), else from a TOML file, else the default. Frozen once read.

Every field's description is printed in ``docs/reference/settings.md`` by ``dynein settings --markdown``; units are the
last part of a name (``_s``, ``_ms``, ``_bytes``). Relations between settings are checked at start.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from dynein.core.job_token import SECRET_BYTES_MIN
from dynein.core.keys import SHARDS_MAX
from dynein.errors import InvalidSettings

Seconds = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]

WORKERS_MAX = 256
NEW_TABLE_BUCKET_WIDTH_S = 60
NEW_TABLE_SHARD_COUNT = 16
_LEDGER_GRACE_MORE_S = 600.0
CONFIG_VARIABLE = "DYNEIN_CONFIG"
URL_VARIABLE = "DYNEIN_URL"
"""Where the command line finds the API; no setting of a process."""
ROLES = ("api", "ingester", "dispatcher")
_SERVICE_LINK = re.compile(r"DYNEIN_(?:.*_)?(?:SERVICE_HOST|SERVICE_PORT(?:_.*)?|PORT_\d+_(?:TCP|UDP)(?:_.*)?)")
Role = Literal["api", "ingester", "dispatcher"]


def _is_network(text: str) -> bool:
    try:
        ipaddress.ip_network(text)
    except ValueError:
        return False
    return True


def _auto_as_zero(value: object) -> object:
    return 0 if value == "auto" else value


class Settings(BaseSettings):
    """One process's settings."""

    model_config = SettingsConfigDict(env_prefix="DYNEIN_", frozen=True, extra="forbid")

    # --- AWS ------------------------------------------------------------------------------------------------------
    region: str | None = Field(None, description="AWS region; unset: what the AWS SDK's own configuration says.")
    endpoint_url: str | None = Field(None, description="One endpoint for both SQS and DynamoDB, for an emulator.")
    sqs_endpoint_url: str | None = Field(None, description="Endpoint for SQS alone; wins over `endpoint_url`.")
    dynamodb_endpoint_url: str | None = Field(
        None, description="Endpoint for DynamoDB alone; wins over `endpoint_url`."
    )
    table: str = Field("dynein", description="DynamoDB table: triggers, shard records, roster, ledger.")
    inbound_queue: str = Field("dynein-inbound", description="SQS queue between the API and the ingesters.")
    dead_letter_queue: str = Field(
        "dynein-dead-letter", description="SQS queue for jobs that could not be delivered and for unreadable messages."
    )
    call_timeout_s: Seconds = Field(5.0, description="Longest an AWS call may take before it counts as unanswered.")
    connections_max: Count = Field(64, description="Open connections to each AWS service.")
    aws_client: Literal["wire", "aiobotocore"] = Field(
        "wire",
        description="Who makes the calls that jobs pass through. `wire`: Dynein itself, at a fraction of the CPU cost; "
        "`aiobotocore`: the AWS SDK, as for all other calls. Behind a proxy (`HTTPS_PROXY`) it is always the SDK.",
    )

    # --- Layout: recorded in the table; when set, checked against that at start -------------------------------------
    bucket_width_s: Count | None = Field(
        None,
        description=f"Width of a time bucket. Unset: what the table says, {NEW_TABLE_BUCKET_WIDTH_S} for a new one. "
        "Fixed once the table is made.",
    )
    shard_count: Annotated[int, Field(ge=1, le=SHARDS_MAX)] | None = Field(
        None,
        description=f"Shards. Unset: what the table says, {NEW_TABLE_SHARD_COUNT} for a new one. `dynein bootstrap` "
        "raises it live. A partition key takes 1,000 write units a second: allow one shard for each 300 jobs/s.",
    )

    # --- API ------------------------------------------------------------------------------------------------------
    host: str = Field("127.0.0.1", description="Address to listen on. In a container: 0.0.0.0.")
    port: Annotated[int, Field(ge=0, le=65535)] = Field(
        8080, description="Port for the API, probes and metrics. 0 takes a free one."
    )
    token_secrets: SecretStr | None = Field(
        None,
        description="Signs job tokens; needed by the `api` role. Comma-separated: the first signs, all verify. "
        f"At least {SECRET_BYTES_MIN} bytes each.",
    )
    message_bytes_max: Annotated[int, Field(ge=8192, le=1048576)] = Field(
        262144,
        description="SQS's payload limit for a message and for a whole batch: 262144 everywhere, 1048576 where every "
        "destination queue has been raised to it.",
    )
    request_bytes_max: Count = Field(16 * 1024 * 1024, description="Largest HTTP request body.")
    http_connections_max: Count = Field(
        10_000,
        description="Most HTTP connections open at once to one process, or what `ulimit -n` leaves room for. Past it, "
        "idle ones are closed for new ones, and if none is idle, new ones wait.",
    )
    caller_rate_per_s: Annotated[float, Field(ge=0)] = Field(
        0.0,
        description="Most requests a second from one caller (its address) to one process; a body costs one request "
        "more for each 4 KiB. 0: no limit but a fair share when there is more to do than can be done.",
    )
    caller_burst_s: Seconds = Field(2.0, description="For how many seconds' worth of requests a caller may be ahead.")
    trusted_proxies: str = Field(
        "",
        description="Networks of proxies whose `X-Forwarded-For` says who the caller is, separated by commas: "
        "`10.0.0.0/8`. Of others it is ignored.",
    )
    batch_jobs_max: Count = Field(1000, description="Most jobs in one POST /v1/jobs/batch.")
    delay_max_days: Count = Field(3660, description="How far ahead a job may be scheduled.")
    destination_cache_s: Seconds = Field(300.0, description="How long a destination look-up is trusted.")
    submit_waiting_max: Count = Field(20_000, description="Most jobs waiting for one queue before the API answers 503.")
    submit_in_flight_max: Count = Field(8, description="Most calls under way to one queue from one API process.")
    pack_bytes_max: Annotated[int, Field(ge=1024)] = Field(
        61440, description="Target size of a packed inbound message; SQS bills by 64 KiB chunk."
    )

    # --- Ingester -------------------------------------------------------------------------------------------------
    ingest_rate_per_s: Annotated[float, Field(gt=0)] = Field(
        10_000.0, description="Jobs a second the whole fleet takes in; each of n live ingesters takes an n-th."
    )
    ingest_receivers: Count = Field(4, description="Receive calls one ingester keeps under way.")
    receive_wait_s: Annotated[int, Field(ge=0, le=20)] = Field(
        5, description="Long-poll time. Longer: fewer requests when idle; draining waits for it."
    )
    visibility_timeout_s: Annotated[int, Field(ge=5, le=43200)] = Field(
        15, description="How long a received inbound message stays ours unless extended; a crash delays it that long."
    )
    hold_window_s: Seconds = Field(
        7.0, description="A job due within this at ingest is held in hand and sent at its due millisecond, not stored."
    )
    held_jobs_max: Count = Field(
        20_000,
        description="Most jobs in one ingester's hand; past it, it stops receiving, and jobs with short delays come "
        "late. By default that is 2,900 jobs a second for each ingester, if all are SCHEDULED with a delay of "
        "`DYNEIN_HOLD_WINDOW_S`. A large job counts for more: one for each 4 KiB.",
    )

    # --- Dispatcher -----------------------------------------------------------------------------------------------
    lease_ttl_s: Seconds = Field(
        10.0, description="A shard whose owner has not renewed for this long, by the observer's clock, may be taken."
    )
    tick_s: Seconds = Field(
        1.0,
        description="How often each lease is renewed, its read mark raised and due triggers read. Costs one write unit "
        "and one read unit a shard a tick.",
    )
    read_ahead_s: Seconds = Field(
        4.0,
        description="How far ahead the read mark stands. From then on a job can no longer be cancelled; its trigger is "
        "read a tick later.",
    )
    read_ahead_jobs_max: Count = Field(
        50_000,
        description="Most triggers in one dispatcher's memory. A large one counts for more: one for each 4 KiB.",
    )
    page_jobs_max: Count = Field(250, description="Triggers a Query page.")
    retire_grace_s: Seconds = Field(
        300.0,
        description="How long after its end a time bucket is still read. Must exceed any clock skew in the fleet.",
    )

    observe_interval_s: Seconds = Field(
        15.0,
        description="How often one dispatcher of the fleet asks SQS how much is on the inbound and the dead-letter "
        "queue, for the metrics.",
    )
    forecast_interval_s: Annotated[float, Field(ge=0)] = Field(
        60.0,
        description="How often that dispatcher counts what is due in the coming minutes, for the metrics. 0: never.",
    )
    forecast_read_units_max: Count = Field(
        4_000,
        description="DynamoDB read units after which one such count stops: what was not counted is estimated. It ends "
        "with the page it is in, which can cost 128. A quiet table of 16 shards takes 240.",
    )

    # --- Delivery (dispatcher and ingester) -------------------------------------------------------------------------
    lane_waiting_max: Count = Field(
        5_000, description="Most due jobs in memory for one destination; more of them stay in the store."
    )
    lane_in_flight_max: Count = Field(8, description="Calls under way to one standard destination (FIFO: always 1).")
    backoff_first_s: Seconds = Field(0.1, description="First pause after a destination fails; doubles, with jitter.")
    backoff_max_s: Seconds = Field(15.0, description="Longest pause between tries of a failing destination.")
    retry_budget_s: Seconds = Field(
        300.0, description="A destination failing for longer than this gets its jobs moved to the dead-letter queue."
    )

    # --- Ledger -----------------------------------------------------------------------------------------------------
    ledger_interval_s: Annotated[float, Field(ge=0)] = Field(
        30.0,
        description="How often a process adds what it counted to the conservation ledger; a process that is killed "
        "loses as much. Costs two write units a window a time. 0: no ledger is kept.",
    )
    ledger_window_s: Count = Field(
        3600,
        description="Jobs due within one such window are counted together. The same for all processes; a change begins "
        "a new ledger.",
    )
    ledger_grace_s: Seconds | None = Field(
        None,
        description="How long after its end a window's books must balance. Unset: 10 min longer than `retry_budget_s`.",
    )

    # --- Process --------------------------------------------------------------------------------------------------
    workers: Annotated[int, BeforeValidator(_auto_as_zero), Field(ge=0, le=WORKERS_MAX)] = Field(
        1,
        description="Processes that `dynein serve` runs, sharing port, rate and shards. 0 or `auto`: one a usable "
        "core. Bounds and connections are each process's own.",
    )
    member_ttl_s: Seconds = Field(
        8.0, description="A process whose beat stands still for this long no longer counts for its fair share."
    )
    linger_s: Annotated[float, Field(ge=0)] = Field(
        0.0,
        description="After SIGTERM, how long the API still takes jobs while /readyz says no, so that load balancers "
        "notice before the port closes. In Kubernetes: 5.",
    )
    drain_s: Seconds = Field(25.0, description="Longest a SIGTERM may take; Kubernetes' grace period must exceed it.")
    log_format: Literal["console", "json"] = Field("console", description="Log lines for people or for programs.")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="Least level logged.")
    otel: bool = Field(
        False,
        description="Make OpenTelemetry spans of submits and deliveries (needs `pip install 'dynein[otel]'`). Where "
        "they go, and which are kept, the standard `OTEL_...` variables say.",
    )

    @model_validator(mode="after")
    def _relations(self) -> Self:
        _require(
            self.lease_ttl_s > 2 * self.tick_s + self.call_timeout_s,
            "lease_ttl_s must exceed 2 * tick_s + call_timeout_s, or one slow renewal loses every lease",
        )
        _require(
            self.read_ahead_s >= 3 * self.tick_s, "read_ahead_s must be at least 3 * tick_s, or jobs are read late"
        )
        _require(
            self.hold_window_s >= self.read_ahead_s + 2.0,
            "hold_window_s must be at least read_ahead_s + 2, or a trigger is stored after its range was read",
        )
        _require(
            self.visibility_timeout_s > self.hold_window_s + self.call_timeout_s,
            "visibility_timeout_s must exceed hold_window_s + call_timeout_s, or held jobs are received twice",
        )
        _require(
            self.retire_grace_s >= 4 * self.lease_ttl_s,
            "retire_grace_s must be at least 4 * lease_ttl_s",
        )
        _require(
            self.ledger_grace_s is None or self.ledger_grace_s >= self.retry_budget_s + 2 * self.ledger_interval_s,
            "ledger_grace_s must be at least retry_budget_s + 2 * ledger_interval_s, or jobs still tried count as lost",
        )
        _require(self.linger_s < self.drain_s, "linger_s must be less than drain_s")
        _require(self.pack_bytes_max <= self.message_bytes_max, "pack_bytes_max must not exceed message_bytes_max")
        for network in self.trusted_proxy_networks:
            _require(_is_network(network), f"trusted_proxies: {network!r} is no network; write 10.0.0.0/8, 192.0.2.7")
        for secret in self.secrets:
            _require(
                len(secret) >= SECRET_BYTES_MIN,
                f"every secret in token_secrets needs {SECRET_BYTES_MIN} bytes or more; "
                "make one with: python -c 'import secrets; print(secrets.token_urlsafe(32))'",
            )
        return self

    @property
    def ledger_grace_in_force_s(self) -> float:
        """`ledger_grace_s`, or what that is when it is unset."""
        return self.retry_budget_s + _LEDGER_GRACE_MORE_S if self.ledger_grace_s is None else self.ledger_grace_s

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
    """Read and check the settings. Raises `InvalidSettings` with one sentence for each that is wrong.

    A ``DYNEIN_`` variable that names no setting is refused too: a typo must not fall back to a default in silence.
    """
    path = os.environ.get(CONFIG_VARIABLE)
    if path and not Path(path).is_file():
        raise InvalidSettings(f"{CONFIG_VARIABLE} names {path}, which is not a file")
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
            "unset the variable or correct its name"
        )
    try:
        return Settings(**dict(overrides or {}))
    except ValidationError as error:
        raise InvalidSettings("\n".join(_sentence(problem) for problem in error.errors())) from error


def _sentence(problem: Any) -> str:  # noqa: ANN401 - pydantic's ErrorDetails
    where = ".".join(str(part) for part in problem["loc"])
    message = str(problem["msg"]).removeprefix("Value error, ")
    return f"DYNEIN_{where.upper()}: {message}" if where else message


def reference_markdown() -> str:
    """The reference page of all settings (``docs/reference/settings.md``)."""
    lines = [
        "# Settings",
        "",
        "Made from the code by `dynein settings --markdown`. Each is read from the environment variable, else from the",
        f"TOML file that `{CONFIG_VARIABLE}` (or `dynein --config`) names, under the same name in lower case without",
        "the prefix. They are checked together at start; a wrong one stops the program with a sentence that names it.",
        "",
        "| environment variable | default | meaning |",
        "| --- | --- | --- |",
    ]
    for name, field in Settings.model_fields.items():
        default = "unset" if field.default is None else f"`{field.default}`"
        lines.append(f"| `DYNEIN_{name.upper()}` | {default} | {field.description} |")
    return "\n".join(lines) + "\n"
