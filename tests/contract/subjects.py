"""What the contract suite runs over: every implementation of a protocol is a fake, or an engine behind an AWS client.

======== ==============================================================================================================
engine   what it is
======== ==============================================================================================================
fake     `dynein.testing`, in memory
real     the AWS account of the environment's credentials, only when ``CONTRACT_REAL_AWS=1``: makes and deletes tables
others   see `tests.engines`
======== ==============================================================================================================

A module of tests says ``pytestmark = over(QUEUES)`` or ``over(TABLES)``.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import pytest

from dynein.settings import Settings
from tests.engines import DYNAMODB_ENGINES, SQS_ENGINES


class Subject(NamedTuple):
    """One implementation. ``client`` is empty for the fake, which needs none."""

    engine: str
    client: str

    def __str__(self) -> str:
        return f"{self.engine}-{self.client}" if self.client else self.engine


CLIENTS: Mapping[str, Mapping[str, Any]] = {
    "wire": {"aws_client": "wire"},
    "aiobotocore": {"aws_client": "aiobotocore"},
}
"""Each implementation of the AWS client, and the settings that choose it."""
ONE_CLIENT_ENGINES = frozenset({"moto", "fauxqs", "ministack"})
"""Engines that meet the default client only, for the sake of CI's time: what an engine does and what a client does vary
apart, and every client meets an engine of each kind. ``CONTRACT_EVERY_PAIR=1`` runs all with all."""
_EVERY_PAIR = os.environ.get("CONTRACT_EVERY_PAIR") == "1"
_DEFAULT_CLIENT = Settings.model_fields["aws_client"].default
FAKE = Subject("fake", "")
_REAL = ("real",) if os.environ.get("CONTRACT_REAL_AWS") == "1" else ()


def _each_client(engines: Iterable[str]) -> tuple[Subject, ...]:
    pairs = itertools.product(engines, CLIENTS)
    return tuple(
        Subject(engine, client)
        for engine, client in pairs
        if _EVERY_PAIR or client == _DEFAULT_CLIENT or engine not in ONE_CLIENT_ENGINES
    )


REAL_QUEUES = _each_client([*SQS_ENGINES, *_REAL])
"""All but the fake."""
REAL_TABLES = _each_client([*DYNAMODB_ENGINES, *_REAL])
"""All but the fake."""
QUEUES = (FAKE, *REAL_QUEUES)
TABLES = (FAKE, *REAL_TABLES)

WITHOUT_TRANSACTIONS: Mapping[str, str] = {"dynalite": "dynalite deviates: it has no TransactWriteItems"}
needs_transactions = pytest.mark.usefixtures("transactions")
"""For a test, or a class of them, that cancels or moves a job: skipped on the engines that cannot."""


def over(subjects: Iterable[Subject]) -> list[pytest.MarkDecorator]:
    """Run a module's tests over each of ``subjects``, all on one event loop: clients are opened once for each."""
    return [
        pytest.mark.parametrize("subject", subjects, indirect=True, scope="session", ids=str),
        pytest.mark.asyncio(loop_scope="session"),
    ]
