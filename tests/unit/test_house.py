"""The shape of the package: what docs/architecture.md promises of it and import-linter does not hold."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import grimp
import pytest

import dynein

PACKAGE = Path(dynein.__file__).parent
ROOMS_MAX = 22
FLOORS_MAX = 12
FIELDS_MAX = 12
ARGUMENTS_MAX = 8
MODULES_IN_ROOT_MAX = 6


@pytest.fixture(scope="module")
def imports() -> grimp.ImportGraph:
    return grimp.build_graph("dynein")


def test_few_modules_stand_in_the_root() -> None:
    assert len(list(PACKAGE.glob("*.py"))) <= MODULES_IN_ROOT_MAX


def test_a_stranger_can_hold_all_rooms_in_mind() -> None:
    rooms = [path for path in PACKAGE.iterdir() if (path / "__init__.py").is_file() or path.suffix == ".py"]
    assert len(rooms) <= ROOMS_MAX


def test_no_module_imports_itself_by_way_of_others(imports: grimp.ImportGraph) -> None:
    circles = [
        module
        for module in imports.modules
        if any(
            imported == module or imports.chain_exists(importer=imported, imported=module)
            for imported in imports.find_modules_directly_imported_by(module)
        )
    ]
    assert not circles


def test_no_room_stands_on_more_than_a_few_floors(imports: grimp.ImportGraph) -> None:
    below: dict[str, set[str]] = {}
    for module in imports.modules:
        room = _room(module)
        found = {_room(imported) for imported in imports.find_modules_directly_imported_by(module)}
        below.setdefault(room, set()).update(found - {room, "dynein"})

    def floor(room: str) -> int:
        return 1 + max((floor(lower) for lower in below[room]), default=0)

    assert max(map(floor, below)) <= FLOORS_MAX


def _room(module: str) -> str:
    return ".".join(module.split(".")[:2])


# --- classes ----------------------------------------------------------------------------------------------------------


class Found(NamedTuple):
    """A class as its source has it."""

    where: str
    fields: int
    arguments: int
    explained: bool
    """A comment stands right above it, or above its constructor."""


def _classes() -> Iterator[Found]:
    for path in sorted(PACKAGE.rglob("*.py")):
        lines = path.read_text().splitlines()
        for node in ast.walk(ast.parse("\n".join(lines))):
            if isinstance(node, ast.ClassDef):
                yield _found(node, path, lines)


def _found(node: ast.ClassDef, path: Path, lines: list[str]) -> Found:
    declared = {
        item.target.id for item in node.body if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
    }
    assigned = {
        target.attr
        for method in node.body
        if isinstance(method, ast.FunctionDef | ast.AsyncFunctionDef)
        for statement in ast.walk(method)
        if isinstance(statement, ast.Assign | ast.AnnAssign)
        for target in (statement.targets if isinstance(statement, ast.Assign) else [statement.target])
        if isinstance(target, ast.Attribute) and isinstance(target.value, ast.Name) and target.value.id == "self"
    }
    made = [item for item in node.body if isinstance(item, ast.FunctionDef) and item.name == "__init__"]
    arguments = [a for method in made for a in [*method.args.args, *method.args.kwonlyargs] if a.arg != "self"]
    above = [first - 2 for first in (_first_line(node), *(method.lineno for method in made))]
    explained = any(lines[number].lstrip().startswith("#") for number in above if number >= 0)
    where = f"{path.relative_to(PACKAGE.parent)}:{node.lineno} {node.name}"
    return Found(where, len(declared | assigned), len(arguments), explained)


def _first_line(node: ast.ClassDef) -> int:
    return min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])


def test_a_class_has_few_fields_or_says_why() -> None:
    crowded = [f"{found.where}: {found.fields}" for found in _classes() if found.fields > FIELDS_MAX]
    explained = {found.where for found in _classes() if found.explained}
    assert not [line for line in crowded if line.rpartition(":")[0] not in explained]


def test_a_constructor_has_few_arguments_or_says_why() -> None:
    assert not [
        f"{found.where}: {found.arguments}"
        for found in _classes()
        if found.arguments > ARGUMENTS_MAX and not found.explained
    ]
