"""Deliberate bugs, to prove that the simulation finds such. ``python -m tests.simulation --mutations 200`` plants each.

A mutation that no seed finds says that the simulation is blind there: then the simulation is improved, not the list.
"""

from __future__ import annotations

from tests.simulation import bugs_delivery, bugs_ingest, bugs_ledger, bugs_scheduling
from tests.simulation.mutation import Mutation

MUTATIONS: tuple[Mutation, ...] = (
    *bugs_ingest.BUGS,
    *bugs_scheduling.BUGS,
    *bugs_delivery.BUGS,
    *bugs_ledger.BUGS,
)
