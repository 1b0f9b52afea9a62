"""The reference page of all metrics (``docs/reference/metrics.md``), from their declarations."""

from __future__ import annotations

from collections.abc import Sequence

from dynein.observability.metrics.declaring import Declared

_HEAD = """\
# Metrics

Generated from the code by `dynein metrics`. Every process serves its metrics at `/metrics`, for Prometheus; the workers
of one `dynein serve --workers` are reported as one process. Counters begin at 0 when a process starts: use `rate()` or
`increase()`. *Role* names the roles that change a metric. The series of the observer (the dispatcher that owns shard 0,
one in the fleet) are missing in all other processes: take their `max()` over the fleet, and the `sum()` of all other
metrics unless their text says otherwise. A process without workers also exports `process_...`: CPU, memory and file
descriptors.
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
