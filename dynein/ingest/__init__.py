"""The ingester: from the inbound queue to the trigger store, or straight to the destination of a job that is due.

What it promises
----------------
* An inbound message is deleted only after each of its jobs is stored, sent, dead-lettered, or known to need none of
  these (cancelled, moved, created twice). Whatever else happens, the message comes back.
* A *near* job, one due within the hold window (of a FIFO queue: within 1.5 ticks), is never merely stored: it is held
  in memory, its inbound message undeleted, and sent at its due millisecond, not earlier, by the same lanes that
  dispatchers use.
* A job cancelled or moved on its way to the store is not sent: a mark first makes further cancels too late and, once it
  has stood for a tick, its tombstone is looked up (``docs/decisions/0001-marks-not-clocks.md``).
* A stored trigger is one that a dispatcher will read: after the write the shard's marks are read, and a trigger that
  was stored behind the read mark is reported, or sent from here if its bucket is retired.
* Never more than ``held_jobs_max`` jobs in memory (or one larger message), and never more than ``ingest_rate_per_s``
  jobs taken in by the whole fleet, give or take a burst.

How a message goes through
--------------------------
::

    Ingester          receive ─► ReceivedMessages: a task for each message
    ReceivedMessages  unpack ─► Admission (room, tokens) ─┐                       ┌─► delete, or give back
    MessageProcessor  ┌───────────────────────────────────┘                       │
                      └► claim ─► shard known? ─► triage                          │
                                  ├► near: hold mark ─► tombstones ─► NearJobs ───┤
                                  │                             │ not sent        │
                                  └► far ───────────────────────┴─► CheckedWrites ┘

`Ingester` is the agent: its receivers, its share of the rate, its drain. `ReceivedMessages` verifies each message, and
works on it until it is deleted or given back; `MessageProcessor` works on the message's jobs. `NearJobs` holds jobs
until they are due. `CheckedWrites` stores, then closes the race with dispatchers: `LateWrites` finds what came behind a
read mark, and what no dispatcher will read is recovered. `Poison` dead-letters what cannot be read. `BatchedStore`,
`MarksCache` and `Inbox` turn what many messages want of the store, of the shard records and of the inbound queue into
few calls; `TableGate` lets nothing be received that could not be stored; `Visibility` keeps messages ours meanwhile;
`ReceiveHistory` remembers what was done for a message that is received again. The decisions are in `triage` and
`dynein.runtime.token_bucket`, both pure.

When something fails
--------------------
==========================================  ============================================================================
failure                                     what becomes of the jobs
==========================================  ============================================================================
message not signed by this deployment, or   dead-lettered whole, with the reason; left to come back if that fails
cannot be read
entry of a message cannot be read           dead-lettered alone, as a message of its own
job record cannot be read (near jobs only)  dead-lettered alone; of a stored one, its dispatcher decides
shard without a record                      dead-lettered alone: no dispatcher would ever read it
shard without an owner                      a near job may be a tick late: nobody says that its mark has stood
table throttled, unavailable, unprocessed   written again under backoff for as long as we run, message kept invisible;
                                            a partition that takes nothing delays its own jobs only
crash before the delete                     message comes back. Stored: storing again changes nothing. Sent: sent twice,
                                            the named duplicate
message received again, near                a trigger that an earlier try stored is left to its dispatcher
write's response lost                       written again; if its trigger was read and sent meanwhile (a job due in
                                            seconds), it is sent twice, another named duplicate
delete fails                                tried again; then remembered, so that this process does not act on it twice
receipt no longer valid                     counted, work goes on: another ingester may do the same work (duplicates)
memory full                                 what is due latest is stored, if a dispatcher can still send it on time, so
                                            that what is due sooner is received
lane full, or its queue fails for long      stored, so that it delays no other destination; a dispatcher takes over
trigger written into a retired bucket       looked up: still there, sent from here and removed; gone, it was sent
SIGTERM                                     no more receives; near jobs due soon are sent, the others are stored;
                                            messages not begun, or not finished in time, are given back at once
table denied, or out of reach               nothing is received: each receive counts towards the inbound queue's limit,
                                            and other ingesters may be able to store it
inbound queue gone                          receives are tried again under backoff
credentials refused (`FatalError`)          the run ends by raising it
any unexpected error                        logged with the message id, message left; SQS moves it to the dead-letter
                                            queue when that keeps happening
==========================================  ============================================================================

SQS keeps a message invisible for at most 12 hours from its receive. Only an outage of the table can make work on one
last that long; after it, that message counts as a receipt no longer valid.
"""

from dynein.ingest.ingester import Ingester

__all__ = ["Ingester"]
