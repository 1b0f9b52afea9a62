"""Which queue names and URLs a user may give. Pure.

A queue URL comes from outside and is copied into signed requests. The SDK sends those to its own endpoint whatever the
URL says, and SQS reads only the path: a URL of another host or region would not fail, it would mean a queue of the same
name *here*. So it is refused.
"""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from dynein.core.loopback import is_loopback
from dynein.errors import UnknownQueue

NAME_CHARS_MAX = 80
_NAME = re.compile(rf"(?=.{{1,{NAME_CHARS_MAX}}}\Z)[A-Za-z0-9_-]+(\.fifo)?", re.ASCII)
_AWS_HOST = re.compile(
    r"""
    (?:vpce-[a-z0-9-]+\.)? sqs(?:-fips)? \. (?P<region>[a-z0-9-]+) (?:\.vpce)? \.amazonaws\.com(?:\.cn)?
    | sqs(?:-fips)? \. (?P<dual_stack_region>[a-z0-9-]+) \.api\.(?:aws|amazonwebservices\.com\.cn)
    | (?:(?P<legacy_region>[a-z0-9-]+)\.)? queue\.amazonaws\.com(?:\.cn)?
    """,
    re.ASCII | re.VERBOSE,
)
_LEGACY_HOME = "us-east-1"
"""The region that ``queue.amazonaws.com`` stands for."""
_EMULATOR_SUFFIX = ".localstack.cloud"
"""Emulators hand out URLs under a domain of theirs, whatever address they are reached by: LocalStack under this one,
fauxqs under ``.localhost``, which is always the own machine."""
_URL_FIX = "Send the queue's name, or its URL: https://sqs.REGION.amazonaws.com/ACCOUNT/NAME."


def is_url(queue: str) -> bool:
    """Whether a destination is given by URL."""
    return "://" in queue


def name_of(queue: str) -> str:
    """The name of a queue that is given by name or URL."""
    return queue.rsplit("/", 1)[-1]


def is_fifo(queue: str) -> bool:
    """Whether a queue that is given by name or URL is a FIFO queue: those, and no others, end in ``.fifo``."""
    return queue.endswith(".fifo")


class QueueAddresses:
    """What an SQS client at ``endpoint_url`` in ``region`` can be asked for."""

    def __init__(self, endpoint_url: str, region: str) -> None:
        self._endpoint_host = urlsplit(endpoint_url).hostname or ""
        self._region = region
        self._endpoint_is_aws = _AWS_HOST.fullmatch(self._endpoint_host) is not None

    def check(self, queue: str) -> None:
        """Raise `UnknownQueue`, saying what to give in its place, if ``queue`` cannot name a queue we can reach."""
        if queue.startswith("arn:"):
            raise UnknownQueue(queue, problem="is an ARN.", fix="Send the queue's name or URL.")
        name = queue
        if is_url(queue):
            self._check_host(queue)
            name = name_of(queue)
        if _NAME.fullmatch(name) is None:
            raise UnknownQueue(
                queue,
                problem="is no name of a queue.",
                fix=f"Send 1 to {NAME_CHARS_MAX} letters, digits, hyphens and underscores; a FIFO queue's name ends in "
                ".fifo.",
            )

    def _check_host(self, queue: str) -> None:
        try:
            if not (queue.isascii() and queue.isprintable()):
                raise ValueError("it has characters that no URL has")  # noqa: TRY301 - urlsplit would drop some of them
            parts = urlsplit(queue)
            host, _ = parts.hostname or "", parts.port
        except ValueError as error:
            raise UnknownQueue(queue, problem=f"is not a valid URL: {error}.", fix=_URL_FIX) from error
        decorated = parts.query or parts.fragment or parts.username is not None or parts.password is not None
        if parts.scheme not in {"http", "https"} or decorated or parts.path.count("/") < 2:  # noqa: PLR2004
            raise UnknownQueue(queue, problem="is no URL of a queue.", fix=_URL_FIX)
        aws = _AWS_HOST.fullmatch(host)
        if aws is not None:
            groups = aws.groupdict()
            region = groups["region"] or groups["dual_stack_region"] or groups["legacy_region"] or _LEGACY_HOME
            if region != self._region:
                raise UnknownQueue(
                    queue,
                    problem=f"is in region {region}; this deployment serves {self._region}.",
                    fix="Name a queue of that region, or call the deployment of the other.",
                )
        elif not self._is_own_host(host):
            raise UnknownQueue(
                queue,
                problem=f"has a host that is neither SQS nor {self._endpoint_host}, which this deployment uses.",
                fix="Send the queue's name.",
            )

    def _is_own_host(self, host: str) -> bool:
        if host == self._endpoint_host:
            return True
        # An emulator may be reached by another name than the one it hands out, from inside a container for example.
        return not self._endpoint_is_aws and (is_loopback(host) or host.endswith(_EMULATOR_SUFFIX))
