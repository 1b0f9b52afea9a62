"""How long to pause after the n-th failure in a row. Pure."""

from __future__ import annotations

import random


def pause_s(failures: int, *, first_s: float, max_s: float, rng: random.Random) -> float:
    """Exponential with "equal jitter": between half and all of ``first_s * 2**(failures - 1)``, at most ``max_s``.

    Jitter keeps a fleet that failed together from retrying together (AWS Architecture Blog, "Exponential Backoff And
    Jitter", 2015). ``failures`` counts from 1.
    """
    assert failures >= 1
    ceiling = min(max_s, first_s * 2.0 ** min(failures - 1, 60))
    return ceiling / 2 + rng.random() * ceiling / 2
