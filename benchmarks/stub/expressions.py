"""Just enough of DynamoDB's expressions: what Dynein's own conditions and updates use."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

Item = dict[str, Any]
_FUNCTION = re.compile(r"(attribute_exists|attribute_not_exists)\((\S+)\)")
_COMPARISON = re.compile(r"(\S+) (=|<|<=) (:\S+)")
_ASSIGNMENT = re.compile(r"(\S+) = (?:(\S+) \+ )?(:\S+)")


def holds(condition: str, item: Mapping[str, Any] | None, values: Mapping[str, Any], names: Mapping[str, str]) -> bool:
    """Whether ``item`` meets ``condition``. OR binds weaker than AND; there are no parentheses."""
    return any(
        all(_holds_one(term.strip(), item or {}, values, names) for term in clause.split(" AND "))
        for clause in condition.split(" OR ")
    )


def updated(expression: str, item: Mapping[str, Any], values: Mapping[str, Any], names: Mapping[str, str]) -> Item:
    """``item`` after ``SET a = :x, b = b + :y`` or ``REMOVE a``."""
    verb, _, rest = expression.partition(" ")
    changed = dict(item)
    for part in rest.split(", "):
        if verb == "REMOVE":
            changed.pop(names.get(part, part), None)
            continue
        found = _ASSIGNMENT.fullmatch(part)
        assert found is not None, expression
        target, base, value = found.groups()
        name = names.get(target, target)
        if base is None:
            changed[name] = values[value]
        else:
            before = int(changed[names.get(base, base)]["N"])
            changed[name] = {"N": str(before + int(values[value]["N"]))}
    return changed


def _holds_one(term: str, item: Mapping[str, Any], values: Mapping[str, Any], names: Mapping[str, str]) -> bool:
    function = _FUNCTION.fullmatch(term)
    if function is not None:
        there = names.get(function[2], function[2]) in item
        return there == (function[1] == "attribute_exists")
    comparison = _COMPARISON.fullmatch(term)
    assert comparison is not None, term
    name, operator, value = comparison.groups()
    attribute = item.get(names.get(name, name))
    if attribute is None:
        return False
    left, right = _plain(attribute), _plain(values[value])
    if operator == "=":
        return bool(left == right)
    return bool(left < right if operator == "<" else left <= right)


def _plain(value: Mapping[str, str]) -> Any:  # noqa: ANN401 - a number or a text
    ((kind, content),) = value.items()
    return int(content) if kind == "N" else content
