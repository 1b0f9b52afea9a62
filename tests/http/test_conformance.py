"""The running application against its own OpenAPI document, by schemathesis.

Every operation is called with data that fits the document and with data that does not. Checked are: no server error, no
undeclared status, content type, header or body; data that does not fit is refused.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import schemathesis
from hypothesis import settings
from schemathesis import Case
from schemathesis.config import SchemathesisConfig

from dynein.api.schemas import MoveRequest
from tests.unit.api.setting import Api

# What a JSON schema cannot say (does the queue exist? is this text a duration?) is refused with 422.
FITTING = ["2xx", "404", "409", "422"]
CONFIG = SchemathesisConfig.from_dict({"checks": {"positive_data_acceptance": {"expected-statuses": FITTING}}})
API = Api(allowed_hosts="testserver")
schema = schemathesis.openapi.from_asgi("/openapi.json", API.app, config=CONFIG)


@schema.parametrize()
@settings(max_examples=50, deadline=None, derandomize=True)
def test_the_application_does_what_its_document_says(case: Case[Any]) -> None:
    case.call_and_validate()


async def handed_over() -> str:
    return (await API.accept()).token


async def scheduled() -> str:
    token = (await API.accept(delay="1h", name="n")).token
    await API.ingest()
    return token


async def on_its_way() -> str:
    return (await API.accept(delay="1h")).token


async def cancelled() -> str:
    token = await scheduled()
    await API.submissions.cancel(token)
    return token


async def moved() -> str:
    token = await scheduled()
    await API.submissions.move(token, MoveRequest(delay="2h"))
    return token


PLACES: list[Callable[[], Coroutine[Any, Any, str]]] = [scheduled, on_its_way, handed_over, cancelled, moved]
REACHED: Counter[tuple[str, int]] = Counter()


@pytest.fixture(scope="module")
def tokens() -> Callable[[], str]:
    """A token of a job in the next of all the places where a job can be."""
    places = itertools.cycle(PLACES)

    def next_token() -> str:
        loop = asyncio.new_event_loop()
        try:
            return loop.run_until_complete(next(places)())
        finally:
            loop.close()

    return next_token


@schema.include(path="/v1/jobs/{token}").parametrize()
@settings(max_examples=30, deadline=None, derandomize=True)
def test_the_same_with_tokens_of_jobs_that_exist(case: Case[Any], tokens: Callable[[], str]) -> None:
    case.path_parameters["token"] = tokens()
    response = case.call()
    case.validate_response(response)
    REACHED[case.operation.method.upper(), response.status_code] += 1


def test_those_calls_got_somewhere() -> None:
    if not REACHED:
        pytest.skip("runs after the calls above")
    called = {method for method, _ in REACHED}
    wanted = {("GET", 200), ("DELETE", 200), ("DELETE", 409), ("PATCH", 200), ("PATCH", 409)}
    assert {(method, status) for method, status in wanted if method in called} <= set(REACHED)
