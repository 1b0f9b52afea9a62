"""The dispatcher role: due triggers to their destination queues, each at its due millisecond.

How it works
------------
A `lease_keeper <dynein.scheduler.leases>` owns this process's fair share of the shards. For each one a `shard reader
<dynein.scheduler.shard_reader>` reads ahead what is due in the next seconds into a `hand
<dynein.scheduler.shard_buffer>`. One `sender <dynein.scheduler.sender>` hands each trigger to its destination's lane
(`dynein.delivery`) at its due millisecond and removes it from the store once the send is acknowledged. What is decided
is decided by pure functions: who owns which shard in `lease_assignment`, what is read, retired and kept in memory in
`read_plan`.

What it promises
----------------
* **Nothing is lost.** A trigger leaves the store only after SQS, or the dead-letter queue, has acknowledged its job. A
  trigger that is forgotten before that (no room, no lease) is known to be, and is read again.
* **Nothing is early.** A job goes to its lane when the wall clock shows its due millisecond, looked at again after
  every sleep.
* **One owner a shard.** Before each try, the lease is asked whether it can still be ours by our own monotonic clock.
* **Cancelled is not sent.** The read mark is raised, and the answer seen, before anything due by it is read; so a
  tombstone that matters is there when its range is read.
* **Nothing is stranded.** A bucket is retired after a read that found it empty, begun a grace after its end, on
  condition that no late write was counted since. After a late write, every open bucket is read again, twice.
* **Memory is bounded.** Room for a page is set aside before it is read. Shards and destinations share it so that
  neither one busy shard nor any number of failing destinations can fill it.

What can go wrong
-----------------
=====================================  ================================================================================
this process crashes                   its beats stand still; after ``lease_ttl_s`` others take its shards and read from
                                       the first open bucket. What was sent and not yet removed is sent twice.
it is frozen, then wakes               its monotonic clock says that its leases may be gone: nothing is sent until a
                                       renewal goes through, which it does only if nobody has taken the shard.
a renewal is not answered              it is repeated while the lease lasts; then sends wait until one goes through.
a renewal finds another owner          the shard is dropped at once. Sends on their way end, and their triggers are
                                       removed, which does no harm.
a take is not answered                 the next look shows our name under the fence that we tried to set: taken again.
it is told to stop                     it leaves the roster, lets sends on their way end, removes what they sent, then
                                       releases its shards: a successor takes them at its next look.
a dispatcher joins                     the others release what exceeds their share, each shard as soon as nothing of it
                                       is on its way.
a read fails                           it is repeated at the next tick, from the same page.
a removal fails, or part of it         what is left is repeated under backoff, and stays in hand until it succeeds.
a destination fails                    its lane fills; its further due triggers are let go, and read again from the
                                       earliest of them when the lane has room. Other destinations do not notice.
a destination is slow                  its further due triggers wait in memory, for ten seconds at most; then as above.
an outage has left a backlog           buckets are read oldest first, page after page, as fast as memory frees up. What
                                       is found empty on the way is retired in one go.
a trigger was stored late              its writer counts it on the shard record; the next renewal shows that, and every
                                       open bucket is read again. So it is after one more renewal, for a move that was
                                       being committed may not have shown in that read.
a tombstone stands at a trigger's key  the trigger is removed, not sent; the tombstone stays until its TTL.
a trigger's record is not a job        it is moved to the dead-letter queue with the reason.
a record is no trigger at all          it is logged once and left for ``dynein audit``. Its bucket can be retired.
the wall clock steps                   forward: what became due goes at once. Back: nothing is early; marks only rise.
=====================================  ================================================================================
"""

from dynein.scheduler.dispatcher import Dispatcher, Snapshot

__all__ = ["Dispatcher", "Snapshot"]
