"""What ``k8s/monitoring/`` promises: rules, runbooks and dashboard, seen to work."""
