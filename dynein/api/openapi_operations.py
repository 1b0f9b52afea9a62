"""Operation objects of the OpenAPI document: their bodies, responses and problems."""

from __future__ import annotations

from typing import Any

import msgspec

from dynein.api.openapi_schemas import REF
from dynein.api.problems import CATALOGUE, PROBLEM_JSON, make

_RETRY_AFTER = {"Retry-After": {"schema": {"type": "integer", "minimum": 1}, "description": "Seconds to wait."}}


def operation(
    operation_id: str,
    summary: str,
    description: str,
    *,
    responses: dict[str, Any],
    problems: tuple[str, ...],
    body: dict[str, Any] | None = None,
    parameters: list[dict[str, Any]] | None = None,
    tag: str = "jobs",
) -> dict[str, Any]:
    """An operation object. ``problems``: codes of the problem catalogue that it may respond with."""
    described: dict[str, Any] = {
        "operationId": operation_id,
        "tags": [tag],
        "summary": summary,
        "description": description,
        "responses": {**responses, **_problem_responses(problems)},
    }
    if body is not None:
        described["requestBody"] = body
    if parameters is not None:
        described["parameters"] = parameters
    return described


def _problem_responses(codes: tuple[str, ...]) -> dict[str, Any]:
    responses: dict[str, Any] = {}
    for code in sorted(codes, key=lambda code: CATALOGUE[code].status):
        kind = CATALOGUE[code]
        response = responses.setdefault(
            str(kind.status),
            {
                "description": "",
                "content": {PROBLEM_JSON: {"schema": {"$ref": REF.format(name="Problem")}, "examples": {}}},
            },
        )
        response["description"] += f"* `{code}`: {kind.title}. {kind.meaning}\n"
        example = msgspec.to_builtins(make(code, kind.meaning, "/v1/jobs"))
        response["content"][PROBLEM_JSON]["examples"][code] = {"summary": kind.title, "value": example}
        if kind.status in {429, 503} or code == "not-stored-yet":
            response["headers"] = _RETRY_AFTER
    return responses


def json_body(schema: str, examples: dict[str, Any], *, required: bool = True) -> dict[str, Any]:
    """A request body in JSON, of a component schema."""
    return {
        "required": required,
        "content": {"application/json": {"schema": {"$ref": REF.format(name=schema)}, "examples": examples}},
    }


def json_response(
    schema: str, description: str, example: dict[str, Any] | None = None, headers: dict[str, Any] | None = None
) -> dict[str, Any]:
    """A response in JSON, of a component schema."""
    content: dict[str, Any] = {"schema": {"$ref": REF.format(name=schema)}}
    if example is not None:
        content["example"] = example
    response: dict[str, Any] = {"description": description, "content": {"application/json": content}}
    if headers is not None:
        response["headers"] = headers
    return response


def text_response(description: str) -> dict[str, Any]:
    """A response in plain text."""
    return {"description": description, "content": {"text/plain": {"schema": {"type": "string"}}}}
