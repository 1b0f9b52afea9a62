"""Job tokens: opaque, URL-safe, signed strings that name one job.

A token *is* the address of its trigger, so finding a job needs no index::

    kind (1 byte) | due time, ms (6) | shard (2) | job id (12) | MAC (18)   = 39 bytes = 52 base64url characters

The MAC is HMAC-SHA-256 cut to 144 bits (RFC 2104, section 5: no less than half of the hash's output). Only the API
signs and verifies tokens: the other roles read them off our own table, and off our own queue, where the whole message
is signed (`dynein.core.seal`).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

from dynein.core.keys import DUE_BYTES, JOB_ID_BYTES, TriggerKey
from dynein.errors import InvalidToken

_MAC_BYTES = 18
_BODY_BYTES = 1 + DUE_BYTES + 2 + JOB_ID_BYTES
TOKEN_CHARS = (_BODY_BYTES + _MAC_BYTES) * 4 // 3
NAMING_CHARS = _BODY_BYTES * 4 // 3
"""The first characters of a token, which name the job. The others, its MAC, give power over it."""
SECRET_BYTES_MIN = 16


class TokenKind(IntEnum):
    """Who holds the job until it is due. Part of the token; never renumber."""

    IMMEDIATE = 0
    SQS_DELAYED = 1
    SCHEDULED = 2
    PREPARED = 3
    """SCHEDULED, with a token made before the job, so that its create can be retried."""


_KINDS = tuple(TokenKind)
# The standard alphabet's + and / would be a second spelling of ours: they become characters that no base64 has.
_TO_STANDARD_BASE64 = bytes.maketrans(b"-_+/", b"+/??")


class JobRef(NamedTuple):
    """What a token stands for."""

    kind: TokenKind
    key: TriggerKey


def parse(token: str) -> JobRef:
    """Read a token without checking its signature: for tokens from our own inbound queue or table.

    Raises `InvalidToken` when the string is not of a token's form.
    """
    raw = _decoded(token)
    if raw[0] >= len(_KINDS):
        raise InvalidToken("the string is not a job token")
    return JobRef(
        _KINDS[raw[0]],
        TriggerKey(
            due_at_ms=int.from_bytes(raw[1 : 1 + DUE_BYTES], "big"),
            job_id=raw[3 + DUE_BYTES : _BODY_BYTES],
            shard=int.from_bytes(raw[1 + DUE_BYTES : 3 + DUE_BYTES], "big"),
        ),
    )


def names(token: str, key: TriggerKey) -> bool:
    """Whether `parse` would read ``token``, and find ``key`` in it. Called for each trigger that is written or read."""
    try:
        raw = _decoded(token)
    except InvalidToken:
        return False
    wanted = key.due_at_ms.to_bytes(DUE_BYTES, "big") + key.shard.to_bytes(2, "big") + key.job_id
    return raw[1:_BODY_BYTES] == wanted and raw[0] < len(_KINDS)


def _decoded(token: str) -> bytes:
    if len(token) != TOKEN_CHARS:
        raise InvalidToken(f"a job token has {TOKEN_CHARS} characters, this one has {len(token)}")
    try:
        return binascii.a2b_base64(token.encode("ascii").translate(_TO_STANDARD_BASE64), strict_mode=True)
    except ValueError as error:  # not ASCII, or not base64
        raise InvalidToken("the string is not a job token") from error


class TokenSigner:
    """Makes and verifies tokens.

    ``secrets``: the first signs, all verify, so that rotating a secret does not break the tokens that users have.
    """

    def __init__(self, secrets: Sequence[bytes]) -> None:
        if not secrets or any(len(secret) < SECRET_BYTES_MIN for secret in secrets):
            raise ValueError(f"at least one secret of {SECRET_BYTES_MIN} bytes or more is needed")
        # A keyed HMAC object copied for each use costs half of hmac.new().
        self._macs = [hmac.new(secret, digestmod=hashlib.sha256) for secret in secrets]

    def sign(self, ref: JobRef) -> str:
        """The token for ``ref``."""
        key = ref.key
        body = (
            ref.kind.to_bytes(1, "big")
            + key.due_at_ms.to_bytes(DUE_BYTES, "big")
            + key.shard.to_bytes(2, "big")
            + key.job_id
        )
        return base64.urlsafe_b64encode(body + _mac(self._macs[0], body)).decode("ascii")

    def verify(self, token: str) -> JobRef:
        """Read a token from outside. Raises `InvalidToken` unless one of our secrets signed it."""
        try:
            ref = parse(token)
        except UnicodeError as error:
            raise InvalidToken("the string is not a job token") from error
        raw = base64.urlsafe_b64decode(token)
        body, mac = raw[:_BODY_BYTES], raw[_BODY_BYTES:]
        if not any(hmac.compare_digest(mac, _mac(known, body)) for known in self._macs):
            raise InvalidToken("the token's signature is not one of this deployment's")
        return ref


def _mac(keyed: hmac.HMAC, body: bytes) -> bytes:
    mac = keyed.copy()
    mac.update(body)
    return mac.digest()[:_MAC_BYTES]
