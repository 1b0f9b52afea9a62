"""The reference page of all metrics (``docs/reference/metrics.md``), from their declarations."""

from __future__ import annotations

from collections.abc import Sequence

from dynein.observability.metrics.declaring import Declared

_HEAD = """\
# Metrics

Made from the code by `dynein metrics`. Every process serves them at `/metrics`, for Prometheus; the workers of one
`dynein serve --workers` report as one. Counters begin at 0 when a process starts: use `rate()` or `increase()`.
*Role* says which processes have a metric that moves. The series of the observer (the dispatcher that owns shard 0, one
in the fleet) are missing everywhere else: take `max()` of them over the fleet, and `sum()` of all others, unless said
otherwise. A process without workers also exports `process_...`: CPU, memory and file descriptors.
"""


def reference_page(declared: Sequence[Declared]) -> str:
    """Markdown, sorted by name."""
    parts = [_HEAD]
    for metric in sorted(declared):
        parts.append(f"## {metric.name}\n\nType: {metric.kind}. Role: {metric.roles}.\n\n{_sentence(metric.meaning)}\n")
        if metric.labels:
            parts.append("\n".join(f"- `{label}`: {values}" for label, values in metric.labels.items()) + "\n")
        parts.append(f"Look here when {_sentence(metric.look)}\n")
    return "\n".join(parts)


def _sentence(text: str) -> str:
    return text if text.endswith(("?", ")")) else f"{text}."
