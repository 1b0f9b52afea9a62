"""Where a service is reached, and which setting says so: for opening a client, and for naming it in an error."""

from __future__ import annotations

import difflib
import functools
import os
import socket
import ssl
from typing import Literal, NamedTuple

import aiohttp
import botocore.session
from aiobotocore.session import AioSession
from botocore.configprovider import ConfiguredEndpointProvider
from botocore.exceptions import BotoCoreError

from dynein.core.http_url import http_url_problem
from dynein.errors import InvalidSettings
from dynein.runtime.proxies import Proxy, proxy_of, without_password
from dynein.settings import Settings

Service = Literal["sqs", "dynamodb"]
_NAMES = {"sqs": "SQS", "dynamodb": "DynamoDB"}
_REGION_VARIABLES = ("AWS_REGION", "AWS_DEFAULT_REGION")
"""The SDK for Python reads only the second; the others, and the platforms that set one of them, the first too."""


class Setting(NamedTuple):
    """A value and the name of the setting that it comes from."""

    value: str
    name: str


class Reach(NamedTuple):
    """Where one client's calls go, in the words of its configuration."""

    service: Service
    url: str
    setting: str
    """Which setting decides it: ``DYNEIN_ENDPOINT_URL``, or ``DYNEIN_REGION=eu-west-3``."""
    proxy: Proxy | None

    def __str__(self) -> str:
        through = f" through {self.proxy}" if self.proxy is not None else ""
        return f"{_NAMES[self.service]} at {self.url} (from {self.setting}){through}"


def region_of(settings: Settings, session: AioSession) -> Setting:
    """The region asked for: by our setting, the environment or the profile. Raises `InvalidSettings` for none."""
    if settings.region:
        return Setting(settings.region, "DYNEIN_REGION")
    for name in _REGION_VARIABLES:
        if os.environ.get(name):
            return Setting(os.environ[name], name)
    found = session.get_config_variable("region") or session.get_scoped_config().get("region")
    if not found:
        raise InvalidSettings("no AWS region: set DYNEIN_REGION (or AWS_REGION, or the profile's region)")
    return Setting(str(found), f"region of the AWS profile {session.profile or 'default'}")


def endpoint_of(service: Service, settings: Settings, session: AioSession) -> Setting | None:
    """The endpoint asked for; ``None``: that of the region. Raises `InvalidSettings` if it is no URL."""
    found = _endpoint_of(service, settings, session)
    problem = http_url_problem(found.value) if found is not None else None
    if found is not None and problem is not None:
        raise InvalidSettings(f"{found.name}={without_password(found.value)} {problem}")
    return found


def _endpoint_of(service: Service, settings: Settings, session: AioSession) -> Setting | None:
    own = settings.sqs_endpoint_url if service == "sqs" else settings.dynamodb_endpoint_url
    if own:
        return Setting(own, f"DYNEIN_{service.upper()}_ENDPOINT_URL")
    if settings.endpoint_url:
        return Setting(settings.endpoint_url, "DYNEIN_ENDPOINT_URL")
    if session.get_config_variable("ignore_configured_endpoint_urls"):
        return None
    configured = ConfiguredEndpointProvider(session.full_config, session.get_scoped_config(), service).provide()
    if not configured:
        return None
    for name in (f"AWS_ENDPOINT_URL_{service.upper()}", "AWS_ENDPOINT_URL"):
        if os.environ.get(name) == configured:
            return Setting(configured, name)
    return Setting(configured, f"endpoint_url of the AWS profile {session.profile or 'default'}")


def reach_of(service: Service, url: str, endpoint: Setting | None, region: Setting) -> Reach:
    """How to name the service that is reached at ``url``."""
    setting = endpoint.name if endpoint is not None else f"{region.name}={region.value}"
    return Reach(service, url, setting, proxy_of(url, all_proxy=False))


def why_unreachable(error: BaseException | None) -> str:  # noqa: PLR0911 - a table
    """Why no request could be sent, in plain words, from whatever error the network, TLS or the SDK raised."""
    root = root_of(error)
    match root:
        case socket.gaierror():
            return f"its host name cannot be resolved ({root.strerror})"
        case ConnectionRefusedError():
            return "nothing listens there (connection refused)"
        case ssl.SSLCertVerificationError():
            why = getattr(root, "verify_message", root)
            return f"its certificate is not trusted ({why}): name its authority in AWS_CA_BUNDLE, or correct the host"
        case ssl.SSLError():
            why = getattr(root, "reason", None) or root
            return f"TLS fails ({why}): does it speak https, in a version of TLS that is allowed?"
        case aiohttp.ClientHttpProxyError():
            return f"the proxy refuses the connection ({root.status} {root.message})"
        case TimeoutError():
            return "no connection was free, or could be made, in time"
        case None:
            return "no connection could be made"
        case _:
            return str(root) or type(root).__name__


def region_hint(error: BaseException | None, reach: Reach | None) -> str:
    """What to correct where a region's endpoint has a name that cannot be resolved."""
    if reach is None or not isinstance(root_of(error), socket.gaierror) or "=" not in reach.setting:
        return ""
    region = reach.setting.partition("=")[2]
    known = _known_regions()
    if region in known:
        return ""
    close = difflib.get_close_matches(region.lower(), known, n=1)
    return f". {region} is no region that the AWS SDK knows" + (f"; did you mean {close[0]}?" if close else "")


@functools.cache
def _known_regions() -> tuple[str, ...]:
    session = botocore.session.get_session()
    partitions = session.get_available_partitions()
    return tuple(region for partition in partitions for region in session.get_available_regions("sqs", partition))


def root_of(error: BaseException | None) -> BaseException | None:
    """The error of the operating system, or of TLS, below those of the SDK and of aiohttp."""
    while True:
        inner: object = None
        if isinstance(error, BotoCoreError):
            inner = error.kwargs.get("error")
        elif isinstance(error, aiohttp.ClientConnectorCertificateError):
            inner = error.certificate_error
        elif isinstance(error, aiohttp.ClientConnectorError):
            inner = error.os_error
        if not isinstance(inner, BaseException):
            return error
        error = inner
