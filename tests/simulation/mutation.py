"""A deliberate bug: a test-only patch of one name of the product, or of the engines as it sees them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from dynein.core.seal import Seal


class Mutation(NamedTuple):
    """One bug."""

    name: str
    owner: Any
    """Class or module."""
    attribute: str
    make: Callable[[Any], Any]
    """From the original to its replacement."""


class _Gullible(Seal):
    def is_ours(self, signature: str, use: str, *parts: bytes) -> bool:  # noqa: ARG002 - whatever it is
        return True


GULLIBLE = _Gullible([b"a secret that signs nothing"])
"""Takes everything for ours."""


@contextmanager
def planted(mutation: Mutation) -> Iterator[None]:
    """With the bug in place."""
    original = getattr(mutation.owner, mutation.attribute)
    setattr(mutation.owner, mutation.attribute, mutation.make(original))
    try:
        yield
    finally:
        setattr(mutation.owner, mutation.attribute, original)


def answer(value: Any) -> Callable[[Any], Any]:
    """A coroutine function that does nothing and returns ``value``."""

    def make(original: Any) -> Any:  # noqa: ARG001 - the original is replaced
        async def verb(*_: Any, **__: Any) -> Any:
            return value

        return verb

    return make


def returns(value: Any) -> Callable[[Any], Any]:
    """A function that does nothing and returns ``value``."""
    return lambda original: lambda *_, **__: value  # noqa: ARG005 - the original is replaced


def instead(value: Any) -> Callable[[Any], Any]:
    """``value`` itself."""
    return lambda original: value  # noqa: ARG005 - the original is replaced


def result(change: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A coroutine function whose result is changed."""

    def make(original: Any) -> Any:
        async def verb(*args: Any, **kwargs: Any) -> Any:
            return change(await original(*args, **kwargs))

        return verb

    return make
