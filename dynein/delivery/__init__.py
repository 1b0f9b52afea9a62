"""Delivery: due jobs to their destination queues. Shared by dispatcher and ingester.

Each destination has a *lane* of its own: its batches, and the state of its failures. A lane that fails pauses alone;
the jobs in it wait, and once it is full, further jobs are turned away (`Overloaded`) and stay where they are stored. So
a deleted or throttled queue costs bounded memory and delays no other. Nor does one that does not respond at all: the
connections that all lanes share are divided so that those that fail cannot hold all of them (`dynein.aws.turns`).

============================================  ==================================================================
SQS's response                                what the lane does
============================================  ==================================================================
entry acknowledged                            `Outcome.SENT`
entry refused for its content                 dead-letters that job at once: sending it again cannot succeed
entry or call throttled, failed, or no reply  pauses the lane, then tries the same batch again
queue missing, access denied                  the same, and looks the queue up anew
failing for longer than the retry budget      dead-letters the batch, and further jobs at once, but for one batch after
                                              each pause, which is tried; one success ends the failure
dead-letter queue fails too                   keeps trying: a job is done only when some queue has acknowledged it
============================================  ==================================================================

The retry budget runs while the lane is being tried. A lane that had nothing to send for a while after a failure starts
with a new budget: a failure of an hour ago is no reason to give a job up at its first failure now.
"""
