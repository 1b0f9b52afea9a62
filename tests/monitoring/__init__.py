"""What ``monitoring/`` promises: rules, runbooks and dashboard, seen to work."""
