"""Query patterns that the dashboard uses more than once.

A query about processes (`PROCESS`) is filtered by the chosen instances. One about the whole fleet (`FLEET`) is not,
because its series come from one process, the observer, whichever that is; `max` makes one series when that changes.
"""

from __future__ import annotations

FLEET = 'namespace=~"$namespace"'
PROCESS = f'{FLEET}, instance=~"$instance"'
QUEUE = f'{PROCESS}, queue=~"$queue"'
_PER = "$__rate_interval"


def rate(by: str, metric: str, matching: str = PROCESS, per: str = _PER) -> str:
    """A counter's rate a second, summed by some labels (none: one sum)."""
    return f"sum by ({by}) (rate({metric}{{{matching}}}[{per}]))" if by else f"sum(rate({metric}{{{matching}}}[{per}]))"


def highest(by: str, metric: str, more: str = "") -> str:
    """A gauge that only the observer exports."""
    matching = f"{FLEET}, {more}" if more else FLEET
    return f"max by ({by}) ({metric}{{{matching}}})" if by else f"max({metric}{{{matching}}})"


def quantile(q: float, histogram: str, by: str = "", matching: str = PROCESS) -> str:
    """The ``q`` quantile of a histogram."""
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({q}, {rate(labels, f'{histogram}_bucket', matching)})"


def or_none(expr: str, label: str) -> str:
    """``expr``, or a line at 0 named "none" where it has no series, to tell "all is well" from "no data"."""
    return f'{expr} or label_replace(vector(0), "{label}", "none", "", "")'
