"""Imports point one way: recordings, world model, planner and environments, command."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MAY_IMPORT = {
    "worldmodel": {"worldmodel"},
    "planner": {"planner", "worldmodel"},
    "envs": {"envs", "worldmodel"},
    "scripts": {"scripts", "envs", "planner", "worldmodel"},
}
ONLY_SCRIPTS_USE = {"mlflow", "jsonargparse", "rich"}


def imported_packages(source: str, package: str) -> set[str]:
    """Top-level names that a module imports anywhere, also inside functions; relative imports are its own package."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(package if node.level else (node.module or "").split(".")[0])
    return found


@pytest.mark.parametrize("package", sorted(MAY_IMPORT))
def test_packages_import_only_what_lies_before_them(package):
    ours = set(MAY_IMPORT) | {"tests"}
    forbidden = (ours - MAY_IMPORT[package]) | (ONLY_SCRIPTS_USE if package != "scripts" else set())
    wrong = {
        f"{file.relative_to(ROOT)} imports {name}"
        for file in sorted((ROOT / package).rglob("*.py"))
        for name in imported_packages(file.read_text(encoding="utf-8"), package) & forbidden
    }
    assert not wrong


def test_an_import_inside_a_function_counts():
    assert imported_packages("def f():\n    from envs.episode import Episode\n", "planner") == {"envs"}


def modules_imported(file: Path, known: set[str]) -> set[str]:
    """Those of `known` that a module imports anywhere, also inside functions, but not for type checking alone."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = [ast.Pass()]
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found & known


def test_no_two_modules_import_each_other():
    files = {
        ".".join(file.relative_to(ROOT).with_suffix("").parts): file
        for package in MAY_IMPORT
        for file in (ROOT / package).rglob("*.py")
        if file.name != "__init__.py"
    }
    TopologicalSorter({name: modules_imported(file, set(files)) for name, file in files.items()}).prepare()
