"""Dynein: distributed delayed-job queueing on SQS and DynamoDB."""

__version__ = "0.1.0"
