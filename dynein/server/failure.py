"""Prints the error that ends a program: one sentence, not a traceback."""

from __future__ import annotations

import os
import sys

from dynein.errors import DyneinError, Unavailable


def print_failure(error: DyneinError) -> None:
    """Print on standard error what failed and what to do about it."""
    hint = ". See DYNEIN_REGION and DYNEIN_ENDPOINT_URL" if isinstance(error, Unavailable) else ""
    print_sentence(str(error).rstrip(".") + hint)


def print_sentence(sentence: str) -> None:
    """``error: `` and ``sentence``, red on a terminal."""
    red, plain = ("\x1b[1;31m", "\x1b[0m") if sys.stderr.isatty() and "NO_COLOR" not in os.environ else ("", "")
    sys.stderr.write(f"{red}error: {plain}{sentence}\n")
