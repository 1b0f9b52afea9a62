"""Whatever is wrong with the configuration of the AWS SDK: one sentence with the setting, its value and the fix."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import pytest

from dynein.aws.calls import AwsCalls
from dynein.aws.clients import sqs_client
from dynein.errors import AccessDenied, DyneinError, InvalidSettings, NotSent
from dynein.observability.telemetry import Telemetry
from dynein.settings import load_settings

KEYS = {"AWS_ACCESS_KEY_ID": "AKIDTEST", "AWS_SECRET_ACCESS_KEY": "hush"}
ROLE = "role_arn = arn:aws:iam::123456789012:role/x\n"
SSO = "sso_region = eu-west-1\nsso_start_url = https://x.awsapps.com/start\n"
SSO_PROFILE = "sso_account_id = 1\nsso_role_name = r\n"


class Wrong(NamedTuple):
    """A configuration, and what the sentence about it has to contain."""

    said: Sequence[str]
    environment: Mapping[str, str] = MappingProxyType({})
    config: str | bytes | None = None
    """Content of the configuration file, if there is one."""
    credentials: str | None = None
    kind: type[DyneinError] = InvalidSettings


CASES = {
    # --- region
    "no region": Wrong(["no AWS region", "DYNEIN_REGION"], {**KEYS, "AWS_DEFAULT_REGION": ""}),
    "region with a space": Wrong(["AWS_DEFAULT_REGION='eu west'", "eu-central-1"], {"AWS_DEFAULT_REGION": "eu west"}),
    "our region": Wrong(["DYNEIN_REGION='eu west'"], {"DYNEIN_REGION": "eu west"}),
    "other SDKs' region": Wrong(["AWS_REGION='eu_west_1!'"], {"AWS_REGION": "eu_west_1!"}),
    "region of the profile": Wrong(
        ["region of the AWS profile default='Frankfurt am Main'"],
        {"AWS_DEFAULT_REGION": ""},
        "[default]\nregion = Frankfurt am Main\n",
    ),
    "region typed wrong": Wrong(
        [
            "SQS at https://sqs.eu-cental-1.amazonaws.com (from DYNEIN_REGION=eu-cental-1) cannot be reached",
            "host name cannot be resolved",
            "did you mean eu-central-1?",
        ],
        {**KEYS, "DYNEIN_REGION": "eu-cental-1"},
        kind=NotSent,
    ),
    # --- endpoint
    "endpoint without scheme": Wrong(
        ["AWS_ENDPOINT_URL=localhost:4566", "write http://localhost:4566"],
        {**KEYS, "AWS_ENDPOINT_URL": "localhost:4566"},
    ),
    "endpoint of one service": Wrong(
        ["AWS_ENDPOINT_URL_SQS=http://h:port", "a port is a number"], {**KEYS, "AWS_ENDPOINT_URL_SQS": "http://h:port"}
    ),
    "endpoint of the profile": Wrong(
        ["endpoint_url of the AWS profile default=sqs", "has no scheme"], KEYS, "[default]\nendpoint_url = sqs\n"
    ),
    "endpoint that nothing listens on": Wrong(
        ["SQS at http://127.0.0.1:1 (from AWS_ENDPOINT_URL)", "connection refused"],
        {**KEYS, "AWS_ENDPOINT_URL": "http://127.0.0.1:1"},
        kind=NotSent,
    ),
    "endpoint with an unknown host": Wrong(
        ["http://sqs.invalid (from DYNEIN_ENDPOINT_URL)", "host name cannot be resolved"],
        {**KEYS, "DYNEIN_ENDPOINT_URL": "http://sqs.invalid"},
        kind=NotSent,
    ),
    "proxy that is not there": Wrong(
        ["http://sqs.invalid", "through the proxy http://***@127.0.0.1:1 (from HTTP_PROXY)", "connection refused"],
        {**KEYS, "DYNEIN_ENDPOINT_URL": "http://sqs.invalid", "HTTP_PROXY": "http://me:hush@127.0.0.1:1"},
        kind=NotSent,
    ),
    "section of services": Wrong(["services = nope", "correct it"], KEYS, "[default]\nservices = nope\n"),
    # --- files
    "configuration file that is no such": Wrong(["AWS_CONFIG_FILE=", "cannot be parsed"], KEYS, "nonsense"),
    "configuration file in Latin-1": Wrong(
        ["AWS_CONFIG_FILE=", "cannot be parsed"], KEYS, b"[default]\nx = \xff\xfe\n"
    ),
    "credentials file that is no such": Wrong(
        ["AWS_SHARED_CREDENTIALS_FILE=", "cannot be parsed"], credentials="nonsense"
    ),
    "configuration file that is a directory": Wrong(
        ["AWS_CONFIG_FILE=/", "is a directory"], {**KEYS, "AWS_CONFIG_FILE": "/"}
    ),
    "CA bundle that is not there": Wrong(
        ["AWS_CA_BUNDLE=/nowhere.pem does not exist", "unset it"], {**KEYS, "AWS_CA_BUNDLE": "/nowhere.pem"}
    ),
    "CA bundle without certificates": Wrong(
        [f"REQUESTS_CA_BUNDLE={__file__} holds no certificates"], {**KEYS, "REQUESTS_CA_BUNDLE": __file__}
    ),
    "CA bundle of the profile": Wrong(
        ["ca_bundle of the AWS profile default=/nowhere.pem"], KEYS, "[default]\nca_bundle = /nowhere.pem\n"
    ),
    "token file of a pod": Wrong(
        ["AWS_WEB_IDENTITY_TOKEN_FILE=/nowhere/token does not exist"],
        {"AWS_WEB_IDENTITY_TOKEN_FILE": "/nowhere/token", "AWS_ROLE_ARN": "arn:aws:iam::123456789012:role/x"},
    ),
    # --- profiles
    "unknown profile": Wrong(
        ["AWS_PROFILE=prodd", "neither", "there are: prod", "unset it"],
        {"AWS_PROFILE": "prodd"},
        "[profile prod]\nregion = eu-west-1\n",
    ),
    "unknown default profile": Wrong(["AWS_DEFAULT_PROFILE=x"], {"AWS_DEFAULT_PROFILE": "x"}),
    "role without source": Wrong(
        ["source_profile or credential_source", "missing"], config=f"[default]\n{ROLE}", kind=AccessDenied
    ),
    "role of an unknown profile": Wrong(['source_profile "y"'], config=f"[default]\n{ROLE}source_profile = y\n"),
    "role of itself": Wrong(
        ["Infinite loop"], config=f"[default]\n{ROLE}source_profile = y\n[profile y]\n{ROLE}source_profile = default\n"
    ),
    "role of an unknown source": Wrong(
        ["credential_source = Foo", "correct it"], config=f"[default]\n{ROLE}credential_source = Foo\n"
    ),
    # --- credentials
    "none": Wrong(["no AWS credentials were found", "AWS_ACCESS_KEY_ID", "AWS_PROFILE"], kind=AccessDenied),
    "half of them": Wrong(["AWS_SECRET_ACCESS_KEY is missing"], {"AWS_ACCESS_KEY_ID": "x"}, kind=AccessDenied),
    "half of them in the file": Wrong(
        ["aws_secret_access_key is missing", "shared-credentials-file"],
        credentials="[default]\naws_access_key_id = x\n",
        kind=AccessDenied,
    ),
    "SSO session that was not begun": Wrong(
        ["SSO session of AWS_PROFILE=dev has expired", "aws sso login"],
        {"AWS_PROFILE": "dev"},
        f"[profile dev]\nsso_session = s\n{SSO_PROFILE}[sso-session s]\n{SSO}",
        kind=AccessDenied,
    ),
    "SSO of old": Wrong(
        ["SSO session of the default AWS profile has expired", "aws sso login"],
        config=f"[default]\n{SSO}{SSO_PROFILE}",
        kind=AccessDenied,
    ),
    "SSO without its section": Wrong(
        ['sso-session does not exist: "s"'], config=f"[default]\nsso_session = s\n{SSO_PROFILE}"
    ),
    "credential_process that fails": Wrong(
        ["credential_process of the default AWS profile", "run it by hand"],
        config="[default]\ncredential_process = sh -c 'echo no vault >&2; exit 1'\n",
        kind=AccessDenied,
    ),
    "credential_process that is not there": Wrong(
        ["credential_process of", "(/nowhere/vault)", "No such file"],
        config="[default]\ncredential_process = /nowhere/vault\n",
        kind=AccessDenied,
    ),
    "credential_process that prints no JSON": Wrong(
        ["credential_process of", "(echo hello)"],
        config="[default]\ncredential_process = echo hello\n",
        kind=AccessDenied,
    ),
    "credential_process that prints no key": Wrong(
        ["credential_process of", "AccessKeyId"],
        config="[default]\ncredential_process = echo '{\"Version\": 1}'\n",
        kind=AccessDenied,
    ),
    "container's credentials": Wrong(
        ["AWS credentials could not be fetched", "http://127.0.0.1:1/x"],
        {"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://127.0.0.1:1/x"},
        kind=NotSent,
    ),
    "container of another host": Wrong(
        ["the AWS SDK does not accept", "example.com"], {"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://example.com/x"}
    ),
    # --- the rest of its variables
    **{
        f"{name}": Wrong([f"{name}=abc", "the AWS SDK does not accept it", "unset it"], {**KEYS, name: "abc"})
        for name in (
            "AWS_ACCOUNT_ID_ENDPOINT_MODE",
            "AWS_DEFAULTS_MODE",
            "AWS_METADATA_SERVICE_TIMEOUT",
            "AWS_REQUEST_CHECKSUM_CALCULATION",
            "AWS_REQUEST_MIN_COMPRESSION_SIZE_BYTES",
            "AWS_STS_REGIONAL_ENDPOINTS",
        )
    },
    "of the profile": Wrong(
        ["sts_regional_endpoints = abc of the default"], KEYS, "[default]\nsts_regional_endpoints = abc\n"
    ),
}


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No configuration of the machine's."""
    for name in os.environ:
        if name.startswith(("AWS_", "DYNEIN_")) or name.upper().endswith("_PROXY"):
            monkeypatch.delenv(name)
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")


@pytest.mark.parametrize("client", ["wire", "aiobotocore"])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
async def test_what_is_wrong_is_said_in_one_sentence(
    case: Wrong, client: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for variable, content in (("AWS_CONFIG_FILE", case.config), ("AWS_SHARED_CREDENTIALS_FILE", case.credentials)):
        file = tmp_path / variable.lower()
        monkeypatch.setenv(variable, str(file))
        if content is not None:
            file.write_bytes(content.encode() if isinstance(content, str) else content)
    for name, value in case.environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(DyneinError) as raised:
        async with sqs_client(load_settings({"aws_client": client})) as sqs:
            await AwsCalls(sqs, Telemetry()).run("GetQueueUrl", sqs.get_queue_url(QueueName="x"))
    sentence = str(raised.value)
    assert type(raised.value) is case.kind, sentence
    assert [part for part in case.said if part not in sentence] == [], sentence
    assert "\n" not in sentence
    assert len(sentence) < 700
    assert "hush" not in sentence
    assert [record for record in caplog.records if record.exc_info] == [], "no traceback in the log either"


@pytest.mark.parametrize("client", ["wire", "aiobotocore"])
async def test_no_proxy_is_between_us_and_this_machine(client: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**KEYS, "HTTP_PROXY": "http://proxy.invalid:3128"}.items():
        monkeypatch.setenv(name, value)
    settings = load_settings({"aws_client": client, "endpoint_url": "http://localhost:1"})
    with pytest.raises(NotSent, match="connection refused") as raised:
        async with sqs_client(settings) as sqs:
            await AwsCalls(sqs, Telemetry()).run("ListQueues", sqs.list_queues())
    assert "proxy" not in str(raised.value)


async def test_the_region_that_other_sdks_read_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**KEYS, "AWS_REGION": "eu-west-3"}.items():
        monkeypatch.setenv(name, value)
    async with sqs_client(load_settings()) as sqs:
        assert sqs.meta.region_name == "eu-west-3"


def test_the_sdks_warning_is_not_logged_beside_its_error(caplog: pytest.LogCaptureFixture) -> None:
    for when in ("mandatory", "advisory"):
        record = logging.LogRecord("botocore.credentials", logging.WARNING, "", 1, f"{when} refresh", (), _an_error())
        logging.getLogger(record.name).handle(record)
    assert [(record.getMessage(), record.exc_info) for record in caplog.records] == [("advisory refresh", None)]


def _an_error() -> tuple[type[Exception], Exception, None]:
    return ValueError, ValueError("no token"), None
