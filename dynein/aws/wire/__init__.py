"""A thin client for the calls of SQS and DynamoDB that jobs pass through.

It does what the SDK does for these calls, at a fraction of the CPU time (`docs/performance.md`): JSON by msgspec, a
signature of its own, connections of its own. `dynein.aws.clients` puts it in the SDK client's place; the setting
``aws_client`` takes it out again.
"""
