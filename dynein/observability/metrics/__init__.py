"""Every metric, declared once together with its text on the reference page; one module for each part of the service.

`dynein.observability.telemetry` combines them for one process. Prometheus's conventions apply: base units, ``_total``
on counters, a bounded number of label values.
"""
