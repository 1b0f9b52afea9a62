"""What is wrong with the AWS SDK's own configuration, as one sentence with the setting, its value and the fix.

The SDK reads environment variables and files, and reports them in exceptions that often leave out which one is meant.
"""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aiobotocore.session import AioSession
from botocore.exceptions import (
    BotoCoreError,
    ConfigParseError,
    ConnectionError,  # noqa: A004 - botocore's name
    CredentialRetrievalError,
    HTTPClientError,
    InvalidRegionError,
    LoginError,
    MetadataRetrievalError,
    MissingDependencyException,
    NoAuthTokenError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
    SSOError,
    TokenRetrievalError,
)

from dynein.aws.endpoints import Setting, region_of, why_unreachable
from dynein.errors import AccessDenied, DyneinError, InvalidSettings, NotSent
from dynein.settings import Settings

_PROFILE_VARIABLES = ("AWS_PROFILE", "AWS_DEFAULT_PROFILE")
_CA_VARIABLES = ("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE")
_FILES = {
    "AWS_CONFIG_FILE": "~/.aws/config",
    "AWS_SHARED_CREDENTIALS_FILE": "~/.aws/credentials",
}
_TOKEN_FILES = ("AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE")
_SECRET = re.compile("key|token|secret|password", re.IGNORECASE)
_SHOWN_CHARS = 300


def check_sdk_files(session: AioSession) -> None:
    """The files that the environment and the profile name are there and can be read. Raises `InvalidSettings`.

    The SDK skips a configuration file that it may not read, and then misses what is in it; a CA bundle that is not
    there ends in a bare `FileNotFoundError`.
    """
    for variable, default in _FILES.items():
        path = Path(os.environ.get(variable) or default).expanduser()
        problem = _unreadable(path)
        if problem is not None and path.exists():  # one that is not there is as good as an empty one
            raise InvalidSettings(f"{variable}={path} {problem}: correct its permissions, or name another file")
    for variable in _TOKEN_FILES:
        token_file = os.environ.get(variable)
        problem = _unreadable(Path(token_file)) if token_file else None
        if problem is not None:
            raise InvalidSettings(f"{variable}={token_file} {problem}: correct the path, or unset it")
    bundle = ca_bundle(session)
    if bundle is not None:
        _check_ca_bundle(bundle)


def ca_bundle(session: AioSession) -> Setting | None:
    """The file with the certificate authorities to trust; ``None``: those that come with the SDK."""
    for variable in _CA_VARIABLES:
        if os.environ.get(variable):
            return Setting(os.environ[variable], variable)
    found = session.get_config_variable("ca_bundle")
    return Setting(str(found), f"ca_bundle of the AWS profile {session.profile or 'default'}") if found else None


def _check_ca_bundle(bundle: Setting) -> None:
    path = Path(bundle.value)
    problem = None if path.is_dir() and os.access(path, os.R_OK) else _unreadable(path)
    if problem is None:
        try:
            where: dict[str, str] = {"capath" if path.is_dir() else "cafile": str(path)}
            ssl.create_default_context().load_verify_locations(**where)
        except (ssl.SSLError, OSError) as error:
            problem = f"holds no certificates in PEM form ({getattr(error, 'reason', None) or error})"
    if problem is not None:
        raise InvalidSettings(
            f"{bundle.name}={bundle.value} {problem}: name a file with the certificates of the authorities to trust, "
            "or unset it"
        )


def _unreadable(path: Path) -> str | None:
    """Why ``path`` cannot be read, as the end of a sentence."""
    try:
        with path.open("rb") as file:
            file.read(1)
    except FileNotFoundError:
        return "does not exist"
    except IsADirectoryError:
        return "is a directory"
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    return None


def opening_error(  # noqa: PLR0911 - a table
    error: Exception, settings: Settings, session: AioSession
) -> DyneinError:
    """What an error of the SDK means that was raised while a client was opened.

    The SDK reads its configuration then, and looks for credentials, which may run a program or make calls.
    """
    meant = credentials_error(error)
    if meant is not None:
        return meant
    match error:
        case HTTPClientError() | ConnectionError():
            return NotSent(f"AWS credentials could not be fetched: {_short(error)}: {why_unreachable(error)}")
        case ProfileNotFound():
            return InvalidSettings(_no_profile(session))
        case InvalidRegionError():
            region = region_of(settings, session)
            return InvalidSettings(f"{region.name}={region.value!r} is no AWS region: write one like eu-central-1")
        case ConfigParseError():
            path = str(error.kwargs.get("path", ""))
            variable = next((v for v, default in _FILES.items() if _same_file(os.environ.get(v) or default, path)), "")
            named = f"{variable}={path}" if variable else path
            return InvalidSettings(
                f"{named} cannot be parsed{_parse_detail(error)}: it needs [sections] with lines `key = value`"
            )
        case MissingDependencyException():
            return InvalidSettings(
                f"the AWS SDK's configuration needs a package that is not installed: {_short(error)}"
            )
    process = _scoped(session).get("credential_process")
    if process and isinstance(error, OSError | ValueError):
        return AccessDenied(
            f"credential_process of {_profile()} ({process}) failed: {_short(error)}: run it by hand, and correct it"
        )
    return InvalidSettings(_culprit(error, session))


def credentials_error(error: Exception) -> DyneinError | None:  # noqa: PLR0911 - a table
    """What an error means that was raised in finding or renewing credentials; ``None``: it is no such error."""
    match error:
        case NoCredentialsError():
            return AccessDenied(
                "no AWS credentials were found: give the process some (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
                "AWS_PROFILE, or the role of its machine or pod)"
            )
        case PartialCredentialsError():
            return AccessDenied(
                f"the AWS credentials are incomplete: {error.kwargs.get('cred_var')} is missing beside the others "
                f"(from {error.kwargs.get('provider')}): set it"
            )
        case SSOError() | TokenRetrievalError() | NoAuthTokenError():
            return AccessDenied(
                f"the AWS SSO session of {_profile()} has expired or was never begun: run `aws sso login` "
                f"({_short(error)})"
            )
        case LoginError():
            return AccessDenied(f"the AWS login of {_profile()} has to be renewed: run `aws login` ({_short(error)})")
        case CredentialRetrievalError() if error.kwargs.get("provider") == "custom-process":
            return AccessDenied(
                f"credential_process of {_profile()} failed: {_short_text(error.kwargs.get('error_msg'))}: run it by "
                "hand, and correct it"
            )
        case CredentialRetrievalError() | MetadataRetrievalError():
            return NotSent(f"AWS credentials could not be fetched: {_short(error)}")
        case _:
            return None


def _no_profile(session: AioSession) -> str:
    variable = next((name for name in _PROFILE_VARIABLES if os.environ.get(name)), _PROFILE_VARIABLES[0])
    files = " nor ".join(str(Path(os.environ.get(name) or default).expanduser()) for name, default in _FILES.items())
    known = ", ".join(sorted(_profiles(session))[:20])
    has = f"; there are: {known}" if known else ""
    return (
        f"{variable}={os.environ.get(variable, session.profile)}: neither {files} has this profile{has}. Correct it, "
        "or unset it"
    )


def _profiles(session: AioSession) -> Mapping[str, Any]:
    try:
        found: Mapping[str, Any] = session.full_config.get("profiles", {})
    except BotoCoreError:
        return {}
    return found


def _profile() -> str:
    for name in _PROFILE_VARIABLES:
        if os.environ.get(name):
            return f"{name}={os.environ[name]}"
    return "the default AWS profile"


def _parse_detail(error: BaseException) -> str:
    detail = error.kwargs.get("error") if isinstance(error, BotoCoreError) else None
    return f" ({_short_text(detail)})" if detail else ""


def _same_file(path: str, other: str) -> bool:
    return Path(path).expanduser() == Path(other).expanduser()


def _culprit(error: Exception, session: AioSession) -> str:
    """A sentence for an error that we have none for: it names the setting whose value the SDK complains about."""
    text = _short(error)
    given = {f"{name}={value}": value for name, value in sorted(os.environ.items()) if name.startswith("AWS_")}
    given |= {f"{key} = {value} of {_profile()}": value for key, value in _scoped(session).items()}
    for named, value in given.items():
        if _mentions(str(error), value) and not _SECRET.search(named.partition("=")[0]):
            return f"{named}: the AWS SDK does not accept it ({text}): correct it, or unset it"
    return f"the AWS SDK does not accept its configuration, that is {_profile()} and the AWS_ variables: {text}"


def _mentions(text: str, value: object) -> bool:
    """Does ``text`` have ``value`` as a word of its own?"""
    return (
        isinstance(value, str)
        and bool(value.strip())
        and (re.search(rf"(?<![\w-]){re.escape(value)}(?![\w-])", text) is not None)
    )


def _scoped(session: AioSession) -> Mapping[str, Any]:
    """The profile's own settings."""
    try:
        found: Mapping[str, Any] = session.get_scoped_config()
    except BotoCoreError:
        return {}
    return found


def _short(error: Exception) -> str:
    return _short_text(str(error) or type(error).__name__)


def _short_text(text: object) -> str:
    line = " ".join(str(text).split()).rstrip(".")
    return line if len(line) <= _SHOWN_CHARS else f"{line[:_SHOWN_CHARS]}..."
