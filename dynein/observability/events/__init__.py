"""Every line that Dynein logs, in one catalogue: its name, its level, its fields, and what to do about it.

An event is logged by calling it, ``LEASE_LOST.log(shard=3, fence=7)``, through the standard library's logging and a
logger of its own, ``dynein.lease.lost``: levels can be set for one event or for a family of them. Tests check that
every call passes only fields that its event declares, and that ``docs/reference/logs.md`` matches this package.

Rules: a name is a subject and what happened to it, and never changes; every line about a job has its token; no line has
a job's body or a secret; what is logged for each job of a healthy service is at level DEBUG.
"""
