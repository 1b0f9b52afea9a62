"""What Dynein measures: every metric, declared once with what its reference page says; one module for each agent.

`dynein.observability.telemetry` puts them together for one process. Prometheus's conventions hold: base units,
``_total`` on counters, bounded labels.
"""
