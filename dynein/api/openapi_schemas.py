"""The schemas of the OpenAPI document: the msgspec types, plus the rules that types cannot express."""

from __future__ import annotations

from typing import Any

import msgspec

from dynein.api.checks import ID_CHARS_MAX, NAME_CHARS_MAX, QUEUE_CHARS_MAX
from dynein.api.due_time import DELAY_CHARS_MAX, EPOCH_MS_MIN
from dynein.api.moments import TIME_CHARS_MAX, ZONE_CHARS_MAX
from dynein.api.problems import Problem
from dynein.api.schemas import (
    Accepted,
    AttributeRequest,
    BatchAnswer,
    CancelledJob,
    JobRequest,
    JobStatus,
    JobWarning,
    MovedJob,
    MoveRequest,
    Prepared,
    PrepareRequest,
)

REF = "#/components/schemas/{name}"
BATCH_REQUEST = "BatchRequest"

_NULL = {"type": "null"}
_RUN_AT = {
    "anyOf": [
        {"type": "string", "format": "date-time", "maxLength": TIME_CHARS_MAX},
        {"type": "number", "minimum": EPOCH_MS_MIN},
        _NULL,
    ]
}
_TIMEZONE = {"anyOf": [{"type": "string", "pattern": "^[A-Za-z][A-Za-z0-9_+/-]*$", "maxLength": ZONE_CHARS_MAX}, _NULL]}
_DELAY = {
    "anyOf": [
        {"type": "number", "minimum": 0},
        {"type": "string", "minLength": 1, "maxLength": DELAY_CHARS_MAX},
        _NULL,
    ]
}
_MESSAGE_ID = {"anyOf": [{"type": "string", "pattern": f"^[!-~]{{1,{ID_CHARS_MAX}}}$"}, _NULL]}
_ATTRIBUTE = {"anyOf": [{"type": "string"}, {"type": "number"}, {"$ref": REF.format(name="AttributeRequest")}]}
_REFINED: dict[str, dict[str, dict[str, Any]]] = {
    "JobRequest": {
        "body": {"anyOf": [{"type": "string", "minLength": 1}, _NULL]},
        "body_base64": {"anyOf": [{"type": "string", "minLength": 4, "contentEncoding": "base64"}, _NULL]},
        "queue": {"minLength": 1, "maxLength": QUEUE_CHARS_MAX},
        "run_at": _RUN_AT,
        "timezone": _TIMEZONE,
        "delay": _DELAY,
        "name": {"anyOf": [{"type": "string", "minLength": 1, "maxLength": NAME_CHARS_MAX}, _NULL]},
        "attributes": {"anyOf": [{"type": "object", "additionalProperties": _ATTRIBUTE}, _NULL]},
        "message_group_id": _MESSAGE_ID,
        "deduplication_id": _MESSAGE_ID,
    },
    "MoveRequest": {"run_at": _RUN_AT, "timezone": _TIMEZONE, "delay": _DELAY},
    "PrepareRequest": {"run_at": _RUN_AT, "timezone": _TIMEZONE, "delay": _DELAY},
}
_NOT_BOTH_TIMES = {
    "not": {
        "required": ["run_at", "delay"],
        "properties": {"run_at": {"not": {"type": "null"}}, "delay": {"not": {"type": "null"}}},
    }
}
_ZONE_OF_A_LOCAL_TIME = {
    "if": {"required": ["timezone"], "properties": {"timezone": {"type": "string"}}},
    "then": {"required": ["run_at"], "properties": {"run_at": {"type": "string"}}},
}
_ONE_BODY = {
    "oneOf": [
        {"required": ["body"], "properties": {"body": {"type": "string"}}},
        {"required": ["json"]},
        {"required": ["body_base64"], "properties": {"body_base64": {"type": "string"}}},
    ]
}
_ONE_TIME = {
    "oneOf": [
        {"required": ["run_at"], "properties": {"run_at": {"not": {"type": "null"}}}},
        {"required": ["delay"], "properties": {"delay": {"not": {"type": "null"}}}},
    ]
}


def component_schemas(*, batch_jobs_max: int) -> dict[str, Any]:
    """``components.schemas`` of the OpenAPI document."""
    _, schemas = msgspec.json.schema_components(
        [
            JobRequest,
            AttributeRequest,
            Accepted,
            JobWarning,
            BatchAnswer,
            PrepareRequest,
            Prepared,
            JobStatus,
            CancelledJob,
            MoveRequest,
            MovedJob,
            Problem,
        ],
        ref_template=REF,
    )
    for struct, fields in _REFINED.items():
        for field, keywords in fields.items():
            schemas[struct]["properties"][field].update(keywords)
    schemas["JobRequest"].update(_ONE_BODY, **_NOT_BOTH_TIMES, **_ZONE_OF_A_LOCAL_TIME)
    schemas["PrepareRequest"].update(_NOT_BOTH_TIMES, **_ZONE_OF_A_LOCAL_TIME)
    schemas["MoveRequest"].update(_ONE_TIME, **_ZONE_OF_A_LOCAL_TIME)
    schemas[BATCH_REQUEST] = {
        "title": BATCH_REQUEST,
        "description": "Jobs to submit. Each is checked separately and has an outcome of its own.",
        "type": "object",
        "required": ["jobs"],
        "additionalProperties": False,
        "properties": {
            "jobs": {
                "type": "array",
                "maxItems": batch_jobs_max,
                "items": {
                    "description": "A `JobRequest`. Any other item gets a problem of its own; the others go ahead.",
                    "anyOf": [{"$ref": REF.format(name="JobRequest")}, {}],
                },
            }
        },
    }
    return schemas
