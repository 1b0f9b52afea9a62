"""Every line that Dynein logs, in one catalogue: its name, its level, its fields, and what to do about it.

An event is logged by calling it, ``LEASE_LOST.log(shard=3, role="dispatcher")``, through the standard library's
logging and a logger of its own, ``dynein.lease.lost``: levels can be set for one event or for a family of them. A
test holds every call to the fields its event declares, and ``docs/reference/logs.md`` to what is here.

Rules of the house: a name is a thing and what happened to it, and stays; a token is in every line about a job; a job's
body and the secrets are in none; whatever is said about each job of a healthy service is at level DEBUG.
"""
