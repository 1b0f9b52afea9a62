"""Unpacks gzip bodies piece by piece: what they unpack to is counted as it is made, not when it is there.

A body of 16 KiB can unpack to 16 MiB. Whoever sends it is charged by what arrives, so what may come of it is bounded in
proportion too.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from dynein.api.problems import MalformedEncoding, RequestTooLarge

GZIP = frozenset({"gzip", "x-gzip"})
"""RFC 9110, 8.4.1.3: ``x-gzip`` is the same."""
PIECE_BYTES = 65_536
"""Unpacked at once."""
FREE_BYTES = 1_048_576
"""May come of any body, however small."""
RATIO_MAX = 100
"""Beyond that, so many times as much as has arrived. A batch of jobs that differ in little more than a number packs to
about a fortieth."""
MEMBERS_MAX = 1_000
"""RFC 1952, 2.2: a file may have several members, one after another. Each costs a set of tables."""
_WITH_GZIP_HEADER = 16 + zlib.MAX_WBITS


class Gunzip:
    """One body. `unpack` what arrives, in order; `end` after the last."""

    def __init__(self) -> None:
        self._member: zlib._Decompress | None = None
        self._members = 0
        self._arrived = self._made = 0

    def unpack(self, data: bytes) -> Iterator[bytes]:
        """What ``data`` unpacks to, in pieces of `PIECE_BYTES` at the most.

        Raises `MalformedEncoding`, or `RequestTooLarge` at the bound.
        """
        self._arrived += len(data)
        more = bool(data)
        while more:
            member = self._member or self._begin()
            try:
                piece = member.decompress(data, PIECE_BYTES)
            except zlib.error as error:
                raise MalformedEncoding(f"The body is not gzip: {error}.") from error
            self._count(len(piece))
            if piece:
                yield piece
            if member.eof:
                self._member, data = None, member.unused_data
                more = bool(data)
            else:
                data = member.unconsumed_tail
                more = bool(data) or len(piece) == PIECE_BYTES  # a full piece: there may be more in its tables

    def end(self) -> None:
        """Raises `MalformedEncoding` unless the last member is complete."""
        if self._member is not None or not self._members:
            raise MalformedEncoding("The body ends within its gzip data.")

    def _begin(self) -> zlib._Decompress:
        self._members += 1
        if self._members > MEMBERS_MAX:
            raise RequestTooLarge(f"The gzip body has more than {MEMBERS_MAX} members.")
        self._member = zlib.decompressobj(_WITH_GZIP_HEADER)
        return self._member

    def _count(self, made: int) -> None:
        self._made += made
        if self._made > FREE_BYTES + RATIO_MAX * self._arrived:
            raise RequestTooLarge(
                f"The gzip body unpacks to more than {RATIO_MAX} times its {self._arrived} bytes. Send it unpacked."
            )
