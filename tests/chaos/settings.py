"""How the disturbed fleet is set up, and what follows from that for how soon it recovers.

No bound in these tests is a guess: each is the sum of settings whose reference (docs/reference/settings.md) says what
others wait for.
"""

from __future__ import annotations

from tests.acceptance.fleet import QUICK

ROLES = ("api", "ingester", "dispatcher")
BUCKET_WIDTH_S = 5
"""So narrow that buckets are retired while a test runs."""
SETTINGS = {
    **QUICK,
    # What a process had, others get while the test runs.
    "DYNEIN_CALL_TIMEOUT_S": "5",
    "DYNEIN_LEASE_TTL_S": "8",
    "DYNEIN_MEMBER_TTL_S": "7",
    "DYNEIN_CLOCK_SKEW_MAX_S": "16",
    "DYNEIN_RETIRE_GRACE_S": "32",
    "DYNEIN_VISIBILITY_TIMEOUT_S": "9",
    "DYNEIN_BUCKET_WIDTH_S": str(BUCKET_WIDTH_S),
    "DYNEIN_RETRY_BUDGET_S": "20",  # longer than any outage here: only the queue that is gone uses it up
    "DYNEIN_BACKOFF_MAX_S": "1",
}


def _ms(*settings: str) -> int:
    return sum(int(float(SETTINGS[f"DYNEIN_{setting}"]) * 1000) for setting in settings)


CALL_TIMEOUT_MS = _ms("CALL_TIMEOUT_S")
CLOCK_SKEW_MS = _ms("CLOCK_SKEW_MAX_S")
LEASE_MS = _ms("LEASE_TTL_S")
VISIBILITY_MS = _ms("VISIBILITY_TIMEOUT_S")
RECOVERY_MS = {
    "api": _ms("BACKOFF_MAX_S"),
    # Its messages become visible to receives that wait for them.
    "ingester": VISIBILITY_MS + _ms("BACKOFF_MAX_S"),
    # Its lease expires, and others, who look each tick, take the shard.
    "dispatcher": LEASE_MS + _ms("TICK_S", "BACKOFF_MAX_S"),
}
"""From the end of a fault on a process, by its role, until its jobs are on their way again: what it had is given to
others, who may be in a pause after a failure of their own."""
RECOVERY_MAX_MS = max(RECOVERY_MS.values())
LATE_MS = CALL_TIMEOUT_MS
"""How late a job may be without any fault: one call on its way may take as long as a call may take."""
