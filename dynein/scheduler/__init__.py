"""The dispatcher role: due triggers to their destination queues, each at its due millisecond.

How it works
------------
The modules, along the way of a trigger:

`lease_keeper <dynein.scheduler.lease_keeper>`
    Owns this process's fair share of the shards, which `lease_assignment` works out. A `lease <dynein.scheduler.lease>`
    says for how long a shard may be used and how far it may be read.
`shard_reader <dynein.scheduler.shard_reader>`
    One for each owned shard: reads ahead what is due in the next seconds into its `shard_buffer
    <dynein.scheduler.shard_buffer>`. What to read next, what to read again and which buckets are finished with is
    decided by `read_plan`; the `read_pool <dynein.scheduler.read_pool>` lets the shards take turns, and `memory_budget`
    says how much each may read.
`sender <dynein.scheduler.sender>`
    Passes each trigger to its destination's lane (`dynein.delivery`) at its due millisecond. What the lane has no room
    for waits in the `overflow <dynein.scheduler.overflow>`, or is evicted from memory and read again later.
`remover <dynein.scheduler.remover>`
    Removes triggers from the store once their sends are acknowledged, and dead-letters records that cannot be read.
`lag <dynein.scheduler.lag>`
    Measures what is late.
`dispatcher <dynein.scheduler.dispatcher>`
    Starts all of these, and ends them in order.

`lease_assignment`, `read_plan` and `memory_budget` are pure: they do no I/O and wait for nothing.

What it promises
----------------
* **Nothing is lost.** A trigger leaves the store only after SQS, or the dead-letter queue, has acknowledged its job. A
  trigger that leaves memory before that (no room, no lease) is still stored, and is read again.
* **Nothing is early.** A job goes to its lane when the wall clock shows its due millisecond, which is checked again
  after every sleep.
* **One owner a shard.** Right before each try, the lease is checked: can it still be ours, by our own monotonic clock?
* **Cancelled is not sent.** The read mark is raised, and that is acknowledged, before anything due by it is read; so a
  tombstone that matters is there when its range is read.
* **Nothing is stranded.** A bucket is retired after a read that found it empty, begun a grace after its end, on
  condition that no late write was counted since. After a late write, every open bucket is read again, twice.
* **Memory is bounded.** Room for a page is set aside before it is read. Shards and destinations share it so that
  neither one busy shard nor any number of failing destinations can fill it.

What can go wrong
-----------------
=====================================  ================================================================================
this process crashes                   its heartbeats stop changing; after ``lease_ttl_s`` others take its shards and
                                       read from the first open bucket. What was sent and not yet removed is sent twice.
it is frozen, then wakes               by its monotonic clock its leases may have expired: nothing is sent until a
                                       renewal succeeds, which it does only if nobody has taken the shard.
a renewal gets no response             it is repeated while the lease lasts; then sends wait until one succeeds.
a renewal finds another owner          the shard is dropped at once. Sends under way end, and their triggers are
                                       removed, which does no harm.
a take gets no response                the next poll shows our name under the fence that we tried to set: taken again.
it is told to stop                     it leaves the roster, lets sends under way end, removes what they sent, then
                                       releases its shards: a successor takes them at its next poll.
a dispatcher joins                     the others release what exceeds their share, each shard as soon as no call of it
                                       is under way.
a read fails                           it is repeated at the next tick, from the same page.
a removal fails, or part of it         what is left is repeated under backoff, and stays in memory until it succeeds;
                                       other partitions' removals do not wait for it.
a destination fails                    its lane fills; its further due triggers are evicted, and read again from the
                                       earliest of them on when the lane has room. Other destinations are not affected.
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
