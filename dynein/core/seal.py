"""The signature on what Dynein writes to its own queues, so that it acts on nothing that another program wrote there.

Whoever may send to the inbound queue could otherwise make jobs that the API never saw, or give a job another body; and
what lies on the dead-letter queue is sent to its destination by ``dynein redrive``. With the signature a leaked
``sqs:SendMessage`` on either queue is worth nothing without the deployment's secret.

It says who wrote a message, not how often it was sent: a message that is copied and sent again is one more delivery of
that message, as SQS makes them itself, and is treated like that. It brings no new job, and none to another
queue or with another body. A job that is still stored is not stored twice, and a cancelled or moved one stays so for as
long as its tombstone is kept (`dynein.aws.dynamodb.items`). One that was delivered is delivered again under the same
token, by which its consumer knows it.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Sequence

SIGNATURE_CHARS = 24
_SIGNATURE_BYTES = SIGNATURE_CHARS * 3 // 4
"""HMAC-SHA-256 cut to 144 bits, as in job tokens (RFC 2104, section 5: no less than half of the hash's output)."""
_LABEL = b"dynein: what is written to its own queues"
_LENGTH_BYTES = 8


class Seal:
    """Signs and verifies. ``secrets`` are those of job tokens: the first signs, all verify, so that one can be rotated.

    Its keys are derived from the secrets (HKDF's extract step, RFC 5869, section 2.2), so that no token is ever a
    signature of this kind, nor the other way round. Raises `ValueError` without a secret.
    """

    def __init__(self, secrets: Sequence[bytes]) -> None:
        if not secrets:
            raise ValueError("at least one secret is needed")
        keys = [hmac.digest(_LABEL, secret, hashlib.sha256) for secret in secrets]
        # A keyed HMAC object copied for each use costs half of hmac.new().
        self._macs = [hmac.new(key, digestmod=hashlib.sha256) for key in keys]

    def sign(self, use: str, *parts: bytes) -> str:
        """`SIGNATURE_CHARS` base64url characters for these ``parts``, in this order, in this ``use`` alone."""
        return _signature(self._macs[0], use, parts)

    def is_ours(self, signature: str, use: str, *parts: bytes) -> bool:
        """Was it made by `sign`, with one of our secrets, for the same ``use`` and ``parts``?"""
        if not signature.isascii():
            return False  # `compare_digest` takes no other text
        return any(hmac.compare_digest(signature, _signature(mac, use, parts)) for mac in self._macs)


def _signature(keyed: hmac.HMAC, use: str, parts: Sequence[bytes]) -> str:
    mac = keyed.copy()
    for part in (use.encode(), *parts):
        # With its length in front, or the end of one part could be the beginning of the next.
        mac.update(len(part).to_bytes(_LENGTH_BYTES, "big"))
        mac.update(part)
    return base64.urlsafe_b64encode(mac.digest()[:_SIGNATURE_BYTES]).decode("ascii")
