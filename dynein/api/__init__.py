"""The API role: takes jobs in over HTTP, and answers for them afterwards.

What it promises
----------------
* A 2xx means that SQS has acknowledged the job: on its destination queue (IMMEDIATE, SQS_DELAYED) or in the inbound
  queue (SCHEDULED). Every entry of every batch answer is looked at.
* What it accepts can be delivered as far as the job itself goes: queue, characters, sizes and attributes were checked,
  in bytes, with everything of ours added. What it refuses, it refuses with the field and the fix.
* DELETE answers 200 only if the job will not be delivered. PATCH moves a job in one transaction.
* One bad job of a batch never fails another.
* Everything that waits in it has a bound, in jobs and in bytes. Past it: 503 with Retry-After.

It holds nothing: kill it, and what had no answer is the only doubt.

How a job goes through
----------------------
::

    intake ─► decoding ─► Submissions ─► drafting (checks, placement, token) ─┬─► DirectSender  ─► destination queue
    (bytes)   (fields)        │                                               └─► InboundSender ─► inbound queue
                              └─► ExistingJobs: get, cancel, move ─► trigger store, shard records

`Submissions` (with `ExistingJobs` behind it) is the whole service without HTTP; `routes` and `app` put HTTP around it,
`shortcut` takes POSTs past the framework.
`due_time`, `kind`, `checks`, `decoding` and `drafting` are pure. `schemas` are the types on the wire, `openapi`
the document made of them, `problems` every way to fail.

Both senders group-commit: a job goes out at once when nothing is in flight, the rest gather while it flies. Scheduled
jobs are packed, near ones (which an ingester will hold in hand) apart from far ones.

When something fails
--------------------
=======================================  ===============================================================================
failure                                  answer
=======================================  ===============================================================================
not JSON; a field wrong, unknown, both   400 malformed-json; 422 invalid-field, naming field and fix
destination unknown, or not ours to use  422 unknown-queue, at submit; believed for 5 s, then looked up anew
token forged, cut off, foreign           404 invalid-token (422 for ``token`` of a job to submit)
SQS refuses an entry for good            422 refused-by-sqs, for that job alone
SQS or DynamoDB throttles                429 throttled with Retry-After; nothing was accepted
an entry fails for now                   503 for that job alone; nothing was accepted
no answer to a direct send               503 that says it may have been sent. Not repeated: it would be a duplicate
no answer from the inbound queue         the same message again, up to 3 times within ``call_timeout_s``; then 503 that
                                         says it may have been accepted. A repeat has the same token and create id
too many jobs or bytes in hand           503 overloaded with Retry-After; nothing was accepted
wall clock set back past 900 s ahead     503 for SQS_DELAYED jobs in that window: a shorter delay would be early
cancel or move too late to know          409 too-late: it will be delivered
answer to cancel or move lost            ask again: an earlier cancel is found by its tombstone, an earlier move too
shutting down                            503 draining, ``Connection: close``, for new jobs; the rest is still answered
credentials or inbound queue gone        503 unavailable with Retry-After 10: a person has to act, ``/readyz`` says so
a bug                                    500 internal, the trace in the log under the answer's ``x-request-id``
=======================================  ===============================================================================

429 is AWS asking to slow down; 503 is about this process or about AWS not answering. Both may be retried. A caller that
must not deliver twice takes a token first (``POST /v1/tokens``) and repeats the submit with it.
"""
