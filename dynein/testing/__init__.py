"""In-memory SQS and DynamoDB, and a clock that a test moves: for Dynein's own tests and for yours.

The fakes implement the same protocols as the real adapters and pass the same contract suite. They keep time by the
clock they are given, so a test that waits fifteen minutes takes none, and they misbehave on demand (`Faults`).
"""

from __future__ import annotations

from dynein.testing.clock import ManualClock
from dynein.testing.faults import Call, Faults, Gate
from dynein.testing.ledger import FakeLedger
from dynein.testing.queues import FakeQueues
from dynein.testing.table import FakeTriggerTable

__all__ = ["Call", "FakeLedger", "FakeQueues", "FakeTriggerTable", "Faults", "Gate", "ManualClock"]
