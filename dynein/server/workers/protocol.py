"""What a worker process and its supervisor say to each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    pass


HEARTBEAT_S = 1.0


HEARTBEAT = b"."


READY = b"r"


EX_FATAL = 1
"""A person has to act: starting again will not help."""


EX_TEMPFAIL = 75
"""SQS or DynamoDB did not answer at start: starting again may help."""


CONNECTIONS_FILE = "connections"


OVERTIME_S = 3.0
"""How much longer than ``drain_s`` a worker may take to end."""


class Spec(msgspec.Struct, frozen=True):
    """What a worker is told by its parent, as JSON; settings it reads itself."""

    number: int
    workers: int
    roles: list[str]
    directory: str
    """Where the workers keep their metrics and connection counts."""
    overrides: dict[str, str | int]
    """Settings given on the command line."""
    listener: int = -1
    """File descriptor."""
    lifeline: int = -1
    """File descriptor."""
