"""An SQS and DynamoDB endpoint that answers at once, and counts every request at the wire.

It takes the place of AWS where the cost of *talking* to AWS is measured: what it does for a request must cost much less
than making it. So it parses no more than it needs, keeps queue messages and items as the JSON text they came in, and
never checks a signature. It is one process on a core of its own; its share of the CPU stands in every table.

Not an emulator: no visibility timeouts (a message received and not deleted does not come back), no delays, no errors,
and only the calls and expressions that Dynein makes.
"""
