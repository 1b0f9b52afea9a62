"""Prints the error that ends a program: one sentence, not a traceback."""

from __future__ import annotations

import os
import sys

from dynein.errors import DyneinError, InvalidSettings
from dynein.observability.one_line import flattened


def print_failure(error: DyneinError) -> None:
    """Print on standard error what failed and what to do about it."""
    first, *more = str(error).splitlines() if isinstance(error, InvalidSettings) else [str(error)]
    print_sentence(first.rstrip("."))
    for sentence in more:  # one for each setting that is invalid
        sys.stderr.write(f"{flattened(sentence)}\n")


def print_sentence(sentence: str) -> None:
    """``error: `` and ``sentence``, red on a terminal. Whatever text of others it quotes, it stays on its line."""
    red, plain = ("\x1b[1;31m", "\x1b[0m") if sys.stderr.isatty() and "NO_COLOR" not in os.environ else ("", "")
    sys.stderr.write(f"{red}error: {plain}{flattened(sentence)}\n")
