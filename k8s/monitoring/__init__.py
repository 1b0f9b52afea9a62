"""What watches Dynein: alert rules, their tests, and the Grafana dashboard.

``alerts.yaml`` and ``alerts_test.yaml`` are kept by hand. The dashboard is made from `k8s.monitoring.dashboard`, and
the PrometheusRule for Kubernetes from ``alerts.yaml``: ``python -m k8s.monitoring`` (or ``make reference``) writes both
into ``k8s/components/monitoring``. ``local/`` is what ``localstack.yml`` gives its Prometheus and Grafana.
"""
