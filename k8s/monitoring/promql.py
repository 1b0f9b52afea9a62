"""The queries of the dashboard, as far as they repeat.

A query about processes (`PROCESS`) follows the choice of instances; one about the fleet as a whole (`FLEET`) does not,
for its figures come from one process, the observer, whichever that is. `max` makes one series of it when that changes.
"""

from __future__ import annotations

FLEET = 'namespace=~"$namespace"'
PROCESS = f'{FLEET}, instance=~"$instance"'
QUEUE = f'{PROCESS}, queue=~"$queue"'
_PER = "$__rate_interval"


def rate(by: str, metric: str, matching: str = PROCESS, per: str = _PER) -> str:
    """How much a counter grows a second, by some labels (none: all in one)."""
    return f"sum by ({by}) (rate({metric}{{{matching}}}[{per}]))" if by else f"sum(rate({metric}{{{matching}}}[{per}]))"


def highest(by: str, metric: str, more: str = "") -> str:
    """A gauge of the observer's."""
    matching = f"{FLEET}, {more}" if more else FLEET
    return f"max by ({by}) ({metric}{{{matching}}})" if by else f"max({metric}{{{matching}}})"


def quantile(q: float, histogram: str, by: str = "", matching: str = PROCESS) -> str:
    """The ``q`` quantile of a histogram."""
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({q}, {rate(labels, f'{histogram}_bucket', matching)})"


def or_none(expr: str, label: str) -> str:
    """``expr``, or a flat line named none where it has nothing: all is well, and not no data."""
    return f'{expr} or label_replace(vector(0), "{label}", "none", "", "")'
