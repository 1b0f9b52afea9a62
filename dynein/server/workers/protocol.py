"""The protocol between a worker process and its supervisor."""

from __future__ import annotations

import msgspec

HEARTBEAT_S = 1.0


HEARTBEAT = b"."


READY = b"r"


EX_FATAL = 1
"""Operator action required: starting again will not help."""


EX_TEMPFAIL = 75
"""SQS or DynamoDB did not respond at start: starting again may help."""


CONNECTIONS_FILE = "connections"


OVERTIME_S = 3.0
"""How much longer than ``drain_s`` a worker may take to exit."""


class Spec(msgspec.Struct, frozen=True):
    """What a worker gets from its parent, as JSON; it reads the settings itself."""

    number: int
    workers: int
    roles: list[str]
    directory: str
    """Where the workers keep their metrics and connection counts."""
    overrides: dict[str, str | int]
    """Settings given on the command line."""
    listener: int | None = None
    """File descriptor of the API's port, if it is open."""
    ops_listener: int | None = None
    """File descriptor of the port of probes and metrics, if they have one of their own."""
    lifeline: int = -1
    """File descriptor."""
