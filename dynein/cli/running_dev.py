"""The ``dynein dev`` that runs in this directory, for the commands of a second terminal.

``dynein dev`` writes where it is reached into a file in its data directory, and locks the file for as long as it lives.
A file that nobody has locked was left by one that was killed: it is not believed. Any setting that says which
deployment is meant takes precedence over it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dynein.cli.engine import CREDENTIALS
from dynein.errors import FatalError
from dynein.settings import CONFIG_VARIABLE, Settings

DATA = Path(".dynein")
"""Where ``dynein dev`` keeps its data, unless it is told otherwise."""
_FILE = "running.json"
SECRET_FILE = "token-secret"
_SHARED = ("endpoint_url", "region", "table", "inbound_queue", "dead_letter_queue")
_WHICH_DEPLOYMENT = (
    CONFIG_VARIABLE,
    "DYNEIN_REGION",
    "DYNEIN_ENDPOINT_URL",
    "DYNEIN_SQS_ENDPOINT_URL",
    "DYNEIN_DYNAMODB_ENDPOINT_URL",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_PROFILE",
    "AWS_DEFAULT_PROFILE",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_SQS",
    "AWS_ENDPOINT_URL_DYNAMODB",
)
"""Variables that say which deployment is meant."""


@contextlib.contextmanager
def announced(data: Path, url: str, settings: Settings) -> Iterator[None]:
    """Other commands find this ``dynein dev``, whose API is at ``url``, while the context is open."""
    path = data / _FILE
    try:
        file = path.open("a+")
    except OSError as error:
        raise FatalError(
            f"{path} cannot be written ({error.strerror}); choose another directory with --data"
        ) from error
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)  # free: the engine's lock keeps a second one out of this directory
        file.truncate(0)
        file.write(json.dumps({"url": url, **{name: getattr(settings, name) for name in _SHARED}}))
        file.flush()
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def running_dev(data: Path = DATA) -> Mapping[str, str] | None:
    """Where the ``dynein dev`` of this directory is reached, if one runs: ``url``, and settings by their names."""
    try:
        with (data / _FILE).open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:
                found = json.loads(file.read())
            else:
                return None  # nobody has it locked
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and {"url", *_SHARED} <= found.keys() else None


def left_behind(data: Path = DATA) -> Path | None:
    """The file of a ``dynein dev`` that was killed, if that is what is there."""
    return data / _FILE if (data / _FILE).is_file() and running_dev(data) is None else None


def settings_of_dev(data: Path = DATA) -> dict[str, Any]:
    """The settings to reach the ``dynein dev`` of this directory; none where a deployment is named, or none runs.

    Sets the credentials that its engine wants, unless there are some.
    """
    if any(os.environ.get(name) for name in _WHICH_DEPLOYMENT):
        return {}
    found = running_dev(data)
    if found is None:
        return {}
    for name, value in CREDENTIALS.items():
        os.environ.setdefault(name, value)
    settings: dict[str, Any] = {name: found[name] for name in _SHARED if f"DYNEIN_{name.upper()}" not in os.environ}
    if "DYNEIN_TOKEN_SECRETS" not in os.environ:
        with contextlib.suppress(OSError):
            settings["token_secrets"] = (data / SECRET_FILE).read_text().strip()
    return settings
