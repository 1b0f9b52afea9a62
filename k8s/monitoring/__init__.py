"""Monitoring of Dynein: alert rules, their tests, and the Grafana dashboard.

``alerts.yaml`` and ``alerts_test.yaml`` are written by hand. The dashboard is generated from
`k8s.monitoring.dashboard`, and the PrometheusRule for Kubernetes from ``alerts.yaml``: ``python -m k8s.monitoring`` (or
``make reference``) writes both into ``k8s/components/monitoring``. ``local/`` is the configuration of Prometheus and
Grafana in ``localstack.yml``.
"""
