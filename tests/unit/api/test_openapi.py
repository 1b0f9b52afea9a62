from __future__ import annotations

import re
from typing import Any

import msgspec
import pytest
from starlette.routing import Route

from dynein.api.app import create_app
from dynein.api.decoding import decode_job, decode_move, decode_prepare
from dynein.api.problems import CATALOGUE
from dynein.api.schemas import JobRequest
from tests.unit.api.setting import Api

METHODS = {"get", "post", "put", "patch", "delete"}


@pytest.fixture
def api() -> Api:
    return Api()


def operations(document: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {
        (method.upper(), path): operation
        for path, item in document["paths"].items()
        for method, operation in item.items()
        if method in METHODS
    }


def test_the_document_has_every_route_and_no_other(api: Api) -> None:
    routes = {
        (method, route.path)
        for route in api.app.router.routes
        if isinstance(route, Route) and not route.path.startswith(("/docs", "/openapi"))
        for method in (route.methods or set()) - {"HEAD"}
    }
    assert set(operations(api.app.openapi())) == routes
    assert len(routes) == 10


def test_without_probes_and_metrics_neither_the_document_nor_the_port_has_them(api: Api) -> None:
    app = create_app(api.submissions, api.readiness, api.lifecycle, api.telemetry, api.settings, serves_ops=False)
    routes = {route.path for route in app.router.routes if isinstance(route, Route)}
    assert {"/healthz", "/readyz", "/metrics"} & (routes | app.openapi()["paths"].keys()) == set()
    assert {tag["name"] for tag in app.openapi()["tags"]} == {"jobs"}


def test_every_reference_leads_somewhere(api: Api) -> None:
    document = api.app.openapi()
    references = set(re.findall(r'"#/components/schemas/(\w+)"', msgspec.json.encode(document).decode()))
    assert references <= set(document["components"]["schemas"])
    assert "BatchItem" in references


def test_every_problem_of_the_catalogue_is_documented(api: Api) -> None:
    documented = {
        code
        for operation in operations(api.app.openapi()).values()
        for response in operation["responses"].values()
        for code in response["content"].get("application/problem+json", {}).get("examples", {})
    }
    assert documented == set(CATALOGUE) - {"method-not-allowed"}


def test_every_field_of_a_job_is_described(api: Api) -> None:
    properties = api.app.openapi()["components"]["schemas"]["JobRequest"]["properties"]
    assert list(properties) == list(JobRequest.__struct_fields__)
    assert all(schema.get("description") for schema in properties.values())


async def test_every_example_of_a_request_is_one(api: Api) -> None:
    decoders: dict[str, Any] = {"submitJob": decode_job, "prepareToken": decode_prepare, "moveJob": decode_move}
    tried = 0
    for operation in operations(api.app.openapi()).values():
        for example in examples(operation):
            decoder = decoders.get(operation["operationId"])
            if decoder is not None:
                decoder(msgspec.json.encode(example))
            if operation["operationId"] == "submitJob":
                await api.submissions.accept(decode_job(msgspec.json.encode(example)))
            tried += 1
    assert tried >= 6


def examples(operation: dict[str, Any]) -> list[Any]:
    content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
    return [example["value"] for example in content.get("examples", {}).values()]


async def test_the_docs_page_and_the_document_are_served(api: Api) -> None:
    async with api.http() as http:
        docs = await http.get("/docs")
        document = await http.get("/openapi.json")
    assert docs.status_code == 200
    assert "/openapi.json" in docs.text
    assert document.json()["openapi"].startswith("3.1")
