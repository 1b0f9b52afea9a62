"""What IAM would say: policies as far as Dynein's go, and the actions that a call to SQS or DynamoDB stands for."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

_SQS_BATCHES = {
    "SendMessageBatch": "SendMessage",
    "DeleteMessageBatch": "DeleteMessage",
    "ChangeMessageVisibilityBatch": "ChangeMessageVisibility",
}
"""IAM has no actions for batches."""
_TRANSACTION_PARTS = {
    "ConditionCheck": "ConditionCheckItem",
    "Delete": "DeleteItem",
    "Put": "PutItem",
    "Update": "UpdateItem",
}
"""Nor for transactions: each part of one is an action of its own."""


class Access(NamedTuple):
    """One thing that a call does: an action on a resource."""

    action: str
    arn: str


class Grant(NamedTuple):
    """One action of one statement."""

    sid: str
    action: str


class Policy:
    """A policy of plain permissions. Anything else in it (a Deny, a Condition) fails: this does not understand it."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self.statements: dict[str, Mapping[str, Any]] = {}
        for statement in document["Statement"]:
            assert statement.keys() == {"Sid", "Effect", "Action", "Resource"}, statement
            assert statement["Effect"] == "Allow"
            assert statement["Sid"] not in self.statements
            self.statements[statement["Sid"]] = statement

    @property
    def grants(self) -> set[Grant]:
        """All that it allows."""
        return {Grant(sid, action) for sid, found in self.statements.items() for action in _list(found["Action"])}

    def resources(self) -> Iterator[str]:
        """Every resource or pattern it names."""
        for statement in self.statements.values():
            yield from _list(statement["Resource"])

    def allowing(self, access: Access) -> set[Grant]:
        """The grants that allow this; none, and IAM refuses it."""
        return {
            Grant(sid, action)
            for sid, statement in self.statements.items()
            if any(_matches(pattern, access.arn) for pattern in _list(statement["Resource"]))
            for action in _list(statement["Action"])
            if _matches(action.lower(), access.action.lower())
        }


def accesses(target: str, body: bytes, region: str, account: str) -> set[Access]:
    """What a call does. ``target`` is its ``X-Amz-Target``; a queue belongs to ``account`` unless its URL says else."""
    service, _, operation = target.partition(".")
    request = json.loads(body)
    if service == "AmazonSQS":
        name = request["QueueName"] if "QueueName" in request else request["QueueUrl"].rsplit("/", 1)[-1]
        return {Access(f"sqs:{_SQS_BATCHES.get(operation, operation)}", f"arn:aws:sqs:{region}:{account}:{name}")}
    assert service.startswith("DynamoDB_"), target
    if operation == "TransactWriteItems":
        parts = [(_TRANSACTION_PARTS[kind], part) for item in request["TransactItems"] for kind, part in item.items()]
        found = {(action, part["TableName"]) for action, part in parts}
    elif "RequestItems" in request:
        found = {(operation, table) for table in request["RequestItems"]}
    else:
        found = {(operation, request["TableName"])}
    return {
        Access(f"dynamodb:{action}", f"arn:aws:dynamodb:{region}:{account}:table/{table}") for action, table in found
    }


def _list(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def _matches(pattern: str, value: str) -> bool:
    """``*`` is any characters, ``?`` any one."""
    expression = re.escape(pattern).replace(r"\*", ".*").replace(r"\?", ".")
    return re.fullmatch(expression, value) is not None
