"""Planted bugs, which the simulation has to find. ``python -m tests.simulation --mutations 200`` plants each.

When no seed finds one, the simulation does not see such bugs: then it is improved, and the bug stays in the list.
"""

from __future__ import annotations

from tests.simulation import (
    bugs_answers,
    bugs_delivery,
    bugs_ingest,
    bugs_leases,
    bugs_ledger,
    bugs_marks,
    bugs_memory,
    bugs_redelivery,
    bugs_scheduling,
)
from tests.simulation.mutation import Mutation

MUTATIONS: tuple[Mutation, ...] = (
    *bugs_ingest.BUGS,
    *bugs_scheduling.BUGS,
    *bugs_delivery.BUGS,
    *bugs_ledger.BUGS,
    *bugs_redelivery.BUGS,
    *bugs_memory.BUGS,
    *bugs_leases.BUGS,
    *bugs_marks.BUGS,
    *bugs_answers.BUGS,
)


def mutation_of(name: str) -> Mutation:
    """The bug of that name."""
    (mutation,) = [mutation for mutation in MUTATIONS if mutation.name == name]
    return mutation
