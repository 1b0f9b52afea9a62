"""What IAM would say: policies as far as Dynein's go, and the actions that a call to SQS or DynamoDB stands for."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
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


_LEADING_KEYS = ("ForAllValues:StringLike", "dynamodb:LeadingKeys")
"""The one condition that is understood: operator and key."""


class Access(NamedTuple):
    """One thing that a call does: an action on a resource."""

    action: str
    arn: str
    leading_keys: tuple[str, ...] = ()
    """Of a call to a table that names items: their partition keys, without what tells partitions of one kind apart."""


class Grant(NamedTuple):
    """One action of one statement."""

    sid: str
    action: str


class Policy:
    """A policy of permissions, some on leading keys. Anything else in it (a Deny, another Condition) fails: this does
    not understand it.
    """

    def __init__(self, document: Mapping[str, Any]) -> None:
        self.statements: dict[str, Mapping[str, Any]] = {}
        for statement in document["Statement"]:
            assert statement.keys() - {"Condition"} == {"Sid", "Effect", "Action", "Resource"}, statement
            leading_keys(statement)
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
            if _matches(action.lower(), access.action.lower()) and _leads(leading_keys(statement), access.leading_keys)
        }


def leading_keys(statement: Mapping[str, Any]) -> list[str] | None:
    """The patterns that a statement's condition has for partition keys; ``None`` without a condition."""
    if "Condition" not in statement:
        return None
    operator, key = _LEADING_KEYS
    ((found, condition),) = statement["Condition"].items()
    assert (found, condition.keys()) == (operator, {key}), statement
    return _list(condition[key])


def _leads(patterns: list[str] | None, keys: tuple[str, ...]) -> bool:
    if patterns is None:
        return True
    assert keys, (
        "AWS takes the condition of a call without keys for met: put such an action into a statement of its own"
    )
    return all(any(_matches(pattern, key) for pattern in patterns) for key in keys)


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
        # AWS does not document whether the condition is on the keys of the part or of the whole; a policy must hold
        # either way.
        keys = _kinds(part.get("Item") or part["Key"] for _, part in parts)
        found = {(action, part["TableName"], keys) for action, part in parts}
    elif "RequestItems" in request:
        found = {(operation, table, _kinds(_keys(items))) for table, items in request["RequestItems"].items()}
    elif "KeyConditionExpression" in request:
        assert request["KeyConditionExpression"].startswith("pk = :pk"), request
        found = {(operation, request["TableName"], _kinds([{"pk": request["ExpressionAttributeValues"][":pk"]}]))}
    else:
        key = request.get("Item") or request.get("Key")
        found = {(operation, request["TableName"], _kinds([key] if key else []))}
    return {
        Access(f"dynamodb:{action}", f"arn:aws:dynamodb:{region}:{account}:table/{table}", keys)
        for action, table, keys in found
    }


def _keys(of_table: Any) -> Iterator[Mapping[str, Any]]:
    """The keys of a BatchGetItem or BatchWriteItem, for one table."""
    if isinstance(of_table, dict):
        yield from of_table["Keys"]
    for request in of_table if isinstance(of_table, list) else ():
        yield request["PutRequest"]["Item"] if "PutRequest" in request else request["DeleteRequest"]["Key"]


def _kinds(keys: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
    """``t#29850417#3`` and all other time buckets as ``t#``; roles of members are kept apart."""
    partitions = {str(key["pk"]["S"]) for key in keys}
    return tuple(sorted({p if p.startswith("member#") else re.sub(r"#.*", "#", p) for p in partitions}))


def _list(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def _matches(pattern: str, value: str) -> bool:
    """``*`` is any characters, ``?`` any one."""
    expression = re.escape(pattern).replace(r"\*", ".*").replace(r"\?", ".")
    return re.fullmatch(expression, value) is not None
