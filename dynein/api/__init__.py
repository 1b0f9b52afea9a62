"""The API role: accepts jobs over HTTP, and looks up, cancels and moves them afterwards.

What it promises
----------------
* A 2xx means that SQS has acknowledged the job: on its destination queue (IMMEDIATE, SQS_DELAYED) or in the inbound
  queue (SCHEDULED). Every entry of every batch response is checked.
* An accepted job can be delivered as far as the job itself is concerned: queue, characters, sizes and attributes were
  checked, in bytes, with everything that Dynein adds. A refusal names the field and the fix.
* DELETE responds with 200 only if the job will not be delivered. PATCH moves a job in one transaction.
* A bad job of a batch never affects the others.
* Everything that waits here is bounded, in jobs and in bytes. Past a bound: 503 with Retry-After.

It stores nothing: if it is killed, only the requests that got no response are in doubt.

How a job passes through
------------------------
::

    intake -> decoding -> Submissions -> drafting (checks, policy, token) -> JobSender
    (bytes)   (fields)        |                                                +-> DirectSender  -> destination queue
                              |                                                +-> InboundSender -> inbound queue
                              +-> StoredJobs: get, cancel, move -> trigger store, shard records

`Submissions` (with `StoredJobs` behind it) is the whole service without HTTP. `routes` and `app` put HTTP around it;
`fast_path` handles POSTs without the framework. `due_time`, `policy`, `checks`, `decoding` and `drafting` are pure.
`schemas` has the types of requests and responses, `openapi` the document made of them, `problems` every way to fail.

Both senders use group commit: a job is sent at once when nothing is in flight; further jobs wait until that call ends
and are sent together. Scheduled jobs are packed; near ones (which an ingester will hold in memory) never share a
message with others.

When something fails
--------------------
=======================================  ===============================================================================
failure                                  response
=======================================  ===============================================================================
not JSON; a field wrong, unknown, both   400 malformed-json; 422 invalid-field, naming field and fix
body, job or number of jobs too large    413 request-too-large, 422 invalid-field; counted before they are decoded
``Content-Encoding`` other than gzip     415 unsupported-encoding; 400 malformed-encoding for gzip that is cut off
``Host`` of another server               421 misdirected (`dynein.api.hosts`)
destination unknown, or not accessible   422 unknown-queue, at submit; cached for 5 s, then looked up again
many of them in one request              503 overloaded for those that were not looked up any more
many of them from one caller             429 rate-limited with Retry-After, for destinations not known yet
token forged, cut off, foreign           404 invalid-token (422 for ``token`` of a job to submit)
SQS refuses an entry permanently         422 refused-by-sqs, for that job alone
SQS or DynamoDB throttles                429 throttled with Retry-After; nothing was accepted
an entry fails temporarily               503 for that job alone; nothing was accepted
no response to a direct send             503 that says it may have been sent. Not repeated: it could be a duplicate
no response from the inbound queue       the same message again, up to 3 times within ``call_timeout_s``; then 503 that
                                         says it may have been accepted. A repeat has the same token and create id
a caller or destination above its rate   429 rate-limited with Retry-After, for what is above it
a queue stands, and no time is left      503 overloaded with Retry-After, by the head alone, to whoever sends most
too many jobs or bytes at once           503 overloaded with Retry-After; nothing was accepted
wall clock set back past 900 s ahead     503 for SQS_DELAYED jobs in that window: a shorter delay would be early
too late to cancel or move               409 too-late: it will be delivered
response to cancel or move lost          repeat it: the tombstone of an earlier cancel or move is found
shutting down                            503 draining, ``Connection: close``, for new jobs; other requests are served
credentials or inbound queue missing     503 unavailable with Retry-After 10: operator action required, see ``/readyz``
a bug                                    500 internal, the trace in the log under the response's ``x-request-id``
=======================================  ===============================================================================

429 means that AWS throttles, or that a rate is exceeded; 503 is about this process, or AWS not responding. Both may be
retried. A caller whose job must not be delivered twice takes a token first (``POST /v1/tokens``) and repeats the submit
with it.
"""
