"""Prints the error that ends a program: one sentence, not a traceback."""

from __future__ import annotations

import os
import sys

from dynein.errors import DyneinError


def print_failure(error: DyneinError) -> None:
    """Print on standard error what failed and what to do about it."""
    print_sentence(str(error).rstrip("."))


def print_sentence(sentence: str) -> None:
    """``error: `` and ``sentence``, red on a terminal."""
    red, plain = ("\x1b[1;31m", "\x1b[0m") if sys.stderr.isatty() and "NO_COLOR" not in os.environ else ("", "")
    sys.stderr.write(f"{red}error: {plain}{sentence}\n")
