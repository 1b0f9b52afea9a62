"""The ingester: from the inbound queue to the trigger store, or straight to a destination that is due.

What it promises
----------------
* An inbound message is deleted only after each of its jobs is stored, sent, or known to need neither (cancelled, moved,
  created twice). Whatever else happens, the message comes back.
* A job due within the hold window is never merely stored: it is kept in hand and sent at its due millisecond, not
  earlier, by the same lanes that dispatchers use.
* A job cancelled or moved on its way never comes to life: a mark first makes further cancels too late, then its
  tombstone is looked for (``docs/decisions/0001-marks-not-clocks.md``).
* A stored trigger is one that a dispatcher will come to: after the write the shard's marks are read, and a trigger
  that came behind the read mark is reported, or sent from here if its bucket is retired.
* Never more than ``held_jobs_max`` jobs in memory (or one larger message), and never more than ``ingest_rate_per_s``
  taken in by the whole fleet, give or take a burst.

How a message goes through
--------------------------
::

    Ingester        receive ─► unpack ─► Gate (room, tokens) ─┐                       ┌─► delete
    Ingestion       ┌─────────────────────────────────────────┘                       │
                    └► claim ─► shard known? ─► HOLD: mark ─► tombstones ─► Hand ──────┤
                                            └► STORE: write ─► LateWrites ◄─not sent──┘

`Ingester` is the agent: its receivers, its share of the rate, its drain. `Ingestion` sees one message's jobs through.
`Hand` waits for due times. `LateWrites` closes the race with dispatchers. `BatchedStore`, `ShardView` and `Inbox` turn
what many messages want of the store, of the shard records and of the inbound queue into few calls; `Visibility` keeps
messages ours meanwhile. `token_bucket` and `admission` are pure.

When something fails
--------------------
==========================================  ============================================================================
failure                                     what becomes of the jobs
==========================================  ============================================================================
message cannot be read                      dead-lettered whole, with the reason; left to come back if that fails
job record cannot be read (near jobs only)  dead-lettered alone; a stored one is the dispatcher's to judge
shard without a record                      dead-lettered alone: no dispatcher would ever read it
table throttled, unavailable, unprocessed   written again under backoff for as long as we run, message kept invisible
crash before the delete                     message comes back. Stored: storing again changes nothing. Sent: sent twice,
                                            the named duplicate
message received again, near                a trigger that an earlier try stored is left to its dispatcher
write's answer lost                         written again; if its trigger was read and sent meanwhile (a job due in
                                            seconds), it is sent twice, another named duplicate
delete fails                                tried again; then remembered, so that this process does not act on it twice
receipt no longer valid                     counted, work goes on: another ingester may do the same work (duplicates)
lane full, or its queue fails for long      stored, so that it holds up no other destination; a dispatcher goes on
trigger written into a retired bucket       looked for: still there, sent from here and removed; gone, it was sent
SIGTERM                                     no more receives; what is due soon is sent, the rest of what is in hand is
                                            stored; messages not begun, or not finished in time, are given back at once
inbound queue gone                          receives are tried again under backoff
credentials refused (`FatalError`)                the run ends by raising it
anything nobody foresaw                     logged with the message id, message left; SQS moves it to the dead-letter
                                            queue when that keeps happening
==========================================  ============================================================================

SQS keeps a message invisible for at most 12 hours from its receive. Only an outage of the table can make work on one
last that long; after it, that message counts as a receipt no longer valid.
"""

from dynein.ingest.ingester import Ingester

__all__ = ["Ingester"]
