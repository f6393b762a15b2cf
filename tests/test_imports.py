"""Imports point one way: between packages, between their rooms, and between modules."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = {  # what each may import, beside itself
    "worldmodel": set(),
    "planner": {"worldmodel"},
    "envs": {"worldmodel"},
    "scripts": {"worldmodel", "planner", "envs"},
}
# What each room may import of its own package, beside itself and the modules at the package's top; docs/architecture.md
# draws it. No room here: nothing of the package imports it, and it imports none of its rooms.
ROOMS = {
    "worldmodel.scene": set(),
    "worldmodel.rules": {"scene"},
    "worldmodel.storage": set(),
    "worldmodel.recordings": {"scene", "storage"},
    "worldmodel.forecaster": {"scene", "storage"},
    "worldmodel.energy": {"scene", "forecaster"},
    "worldmodel.training": {"scene", "storage", "recordings", "forecaster", "energy"},
    "worldmodel.concepts": {"scene", "storage", "recordings", "forecaster", "training"},
    "worldmodel.joint_embedding": {"scene", "storage", "recordings", "forecaster", "training"},
    "worldmodel.raster": {"scene", "storage", "recordings", "forecaster", "training"},
    "worldmodel.energy_methods": {"scene", "recordings", "training", "joint_embedding"},
    "worldmodel.evaluation": {
        "scene",
        "storage",
        "recordings",
        "forecaster",
        "energy",
        "training",
        "joint_embedding",
        "raster",
        "energy_methods",
    },
    "planner.costs": set(),
    "planner.imagination": {"costs"},
    "planner.manoeuvres": {"costs"},
    "planner.pictures": {"costs", "imagination"},
    "planner.policy": {"costs", "imagination", "manoeuvres"},
    "planner.planning": {"costs", "imagination", "manoeuvres"},
    "planner.distillation": {"manoeuvres", "policy", "planning"},
    "envs.behaviour": set(),
    "envs.highway": {"behaviour"},
    "envs.batched": {"behaviour", "highway"},
    "envs.recorded": {"behaviour", "highway"},
    "envs.imagined": {"behaviour", "highway", "recorded"},
    "envs.recording": {"behaviour", "highway", "batched"},
    "envs.drivers": {"behaviour", "highway", "batched"},
    "envs.drivers.learned": {"behaviour", "highway", "batched", "drivers"},
    "envs.staged": set(),
    "envs.replay": set(),
    "envs.evaluation": {"replay"},
    "scripts.tracking": set(),
    "scripts.command": {"tracking"},
    "scripts.driving": {"tracking", "command"},
    "scripts.figures": {"driving"},
    "scripts.verbs": {"command", "tracking", "driving", "figures"},
    "scripts.tools": {"command", "tracking", "driving", "figures"},
}
TOPS = {"worldmodel.errors", "envs.lockstep", "envs.registration"}  # modules that stand in no room
ONLY_SCRIPTS_USE = {"mlflow", "jsonargparse", "rich"}


def module_name(file: Path) -> str:
    """`planner.costs.energy`; a package is named without its `__init__`."""
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


FILES = {module_name(file): file for package in PACKAGES for file in sorted((ROOT / package).rglob("*.py"))}
ARE_PACKAGES = {name for name, file in FILES.items() if file.name == "__init__.py"}


def imported(source: str, module: str, is_package: bool = False) -> Iterator[str]:
    """Dotted names that a module imports anywhere, also inside functions and for types only."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parts = module.split(".")
            parents = parts[: len(parts) - node.level + is_package] if node.level else []
            base = ".".join([*(["drivecast"] if node.level else []), *parents, *filter(None, [node.module])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def ours(name: str) -> str:
    """The module of ours that an imported name is or lies in, such as `envs.lockstep`; empty for others."""
    if name == "drivecast" or not name.startswith("drivecast."):
        return ""
    parts = name.split(".")[1:]
    while parts and ".".join(parts) not in FILES:
        parts.pop()
    return ".".join(parts)


def imports_of(module: str) -> set[str]:
    """Modules of ours that one imports; not the packages on the way to them."""
    file = FILES[module]
    names = list(imported(file.read_text(encoding="utf-8"), module, module in ARE_PACKAGES))
    found = {ours(name) for name in names} - {"", module}
    return {one for one in found if not any(other.startswith(f"{one}.") for other in found)}


IMPORTS = {module: imports_of(module) for module in FILES}


def room_of(module: str) -> str:
    """The room that a module stands in; the package, for those at its top."""
    parts = module.split(".")
    fitting = [".".join(parts[:length]) for length in (3, 2) if ".".join(parts[:length]) in ROOMS]
    return fitting[0] if fitting else parts[0]


@pytest.mark.parametrize("package", sorted(PACKAGES))
def test_packages_import_only_what_lies_before_them(package):
    allowed = PACKAGES[package] | {package}
    wrong = [
        f"{module} imports {other}"
        for module, others in IMPORTS.items()
        for other in sorted(others)
        if module.split(".")[0] == package and other.split(".")[0] not in allowed
    ]
    assert not wrong


@pytest.mark.parametrize("package", sorted(set(PACKAGES) - {"scripts"}))
def test_the_libraries_of_the_command_are_not_used_below_it(package):
    wrong = {
        f"{module} imports {name}"
        for module, file in FILES.items()
        if module.split(".")[0] == package
        for name in imported(file.read_text(encoding="utf-8"), module)
        if name.split(".")[0] in ONLY_SCRIPTS_USE
    }
    assert not wrong


@pytest.mark.parametrize("room", sorted(ROOMS))
def test_rooms_import_only_the_rooms_that_they_may(room):
    package = room.split(".")[0]
    allowed = {room, package} | {f"{package}.{name}" for name in ROOMS[room]}
    wrong = [
        f"{module} imports {other}"
        for module, others in IMPORTS.items()
        for other in sorted(others)
        if room_of(module) == room and other.split(".")[0] == package and room_of(other) not in allowed
    ]
    assert not wrong


def test_no_module_stands_outside_the_rooms():
    loose = {name for name in FILES if room_of(name) == name.split(".")[0]} - set(PACKAGES) - TOPS
    assert not loose


def circle(arrows: dict[str, set[str]]) -> list[str]:
    """One circle of arrows, if there is any."""
    try:
        TopologicalSorter(arrows).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_neither_rooms_nor_modules_import_in_circles():
    rooms = {room: {f"{room.split('.')[0]}.{name}" for name in names} for room, names in ROOMS.items()}
    assert not circle(rooms)
    assert not circle({module: others for module, others in IMPORTS.items()})


def test_nothing_is_imported_by_the_names_of_its_folders():
    """`envs` and `drivecast.envs` would be two modules with two registries and two of each class."""
    files = [*FILES.values(), *sorted((ROOT / "tests").rglob("*.py"))]
    wrong = [
        f"{file.relative_to(ROOT)} imports {name}"
        for file in files
        for name in imported(file.read_text(encoding="utf-8"), module_name(file))
        if name.split(".")[0] in PACKAGES
    ]
    assert not wrong


def test_the_command_imports_each_module_under_one_name():
    code = (
        "import sys; from drivecast.scripts.command.verb import VERBS; [verb.load() for verb in VERBS.values()]; "
        f"sys.exit(str({sorted(PACKAGES)} & sys.modules.keys()) if {set(PACKAGES)} & sys.modules.keys() else 0)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_an_import_inside_a_function_counts():
    source = "def f():\n    from drivecast.envs.replay.page import write_page\n"
    assert "drivecast.envs.replay.page" in set(imported(source, "planner.costs.energy"))
    assert ours("drivecast.envs.replay.page.write_page") == "envs.replay.page"


def test_relative_imports_count():
    assert "drivecast.planner.costs.terms" in set(imported("from . import terms", "planner.costs.energy"))
    assert "drivecast.planner.policy.network" in set(imported("from ..policy import network", "planner.costs.energy"))
    assert "drivecast.planner.costs.terms" in set(imported("from . import terms", "planner.costs", is_package=True))
