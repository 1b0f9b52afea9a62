"""An SQS and DynamoDB endpoint that responds at once, and counts every request.

It replaces AWS where the cost of *calling* AWS is measured: serving a request must cost much less than making it. So it
parses no more than it needs, keeps queue messages and items as the JSON text in which they arrived, and never checks a
signature. It is one process on its own core; its share of the CPU is in every table.

Not an emulator: no visibility timeouts (a message received and not deleted does not come back), no delays, no errors,
and only the calls and expressions that Dynein makes.
"""
