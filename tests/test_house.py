"""The house: folders import downwards only, and the public names are each one thing."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

import cowest_bench
from tests.conftest import ROOT

PACKAGE = ROOT / "cowest_bench"

#: From the bottom up. What stands on one line may not import each other, but for the last.
FLOORS = (
    ("errors",),
    ("config",),
    ("analysis",),
    ("store",),
    ("tasks",),
    ("models",),
    ("systems",),
    ("lab",),
    ("method",),
    ("plan",),
    ("sweep",),
    ("gate",),
    ("report",),
    ("board", "doors", "pocket"),
    ("cli",),
)
FLOOR = {room: level for level, rooms in enumerate(FLOORS) for room in rooms}


def imports(file: Path) -> Iterator[tuple[str, ast.AST]]:
    """The modules of the package that a file imports, wherever in it, and where."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("cowest_bench"):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from ((name, node) for name in names)
        elif isinstance(node, ast.Import):
            yield from ((a.name, node) for a in node.names if a.name.startswith("cowest_bench"))


def room(name: str) -> str:
    """The folder, or module of the top floor, that a dotted name is in."""
    parts = name.split(".")
    return parts[1] if len(parts) > 1 else ""


def test_folders_import_downwards_only() -> None:
    upwards = []
    for file in PACKAGE.rglob("*.py"):
        own = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if own in ("__init__", "__main__"):
            continue
        for name, node in imports(file):
            other = room(name)
            if other in ("", own) or other not in FLOOR:
                continue
            if FLOOR[other] >= FLOOR[own]:
                upwards.append(f"{file.relative_to(ROOT)}:{node.lineno} imports {name}")  # type: ignore[attr-defined]
    assert upwards == []


def test_every_folder_has_a_floor_and_says_what_is_inside() -> None:
    rooms = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").is_file()}
    rooms |= {path.stem for path in PACKAGE.glob("[!_]*.py")}
    assert rooms == set(FLOOR)
    for name in rooms:
        file = PACKAGE / name / "__init__.py"
        if file.is_file():
            assert len(ast.get_docstring(ast.parse(file.read_text())) or "") > 30, name


def test_files_of_a_folder_do_not_import_each_other_in_a_circle() -> None:
    """At import time; what is imported in a function or for types only is no tie."""
    ties: dict[str, set[str]] = defaultdict(set)
    modules = {module_of(file): file for file in PACKAGE.rglob("*.py")}
    for name, file in modules.items():
        tree = ast.parse(file.read_text(encoding="utf-8"))
        for node in tree.body:
            if isinstance(node, ast.ImportFrom) and node.module:
                for alias in node.names:
                    for target in (f"{node.module}.{alias.name}", node.module):
                        if target in modules and target != name:
                            ties[name].add(target)
                            break
    for start in ties:
        assert start not in reached(ties, start), f"{start} is in a circle"


def module_of(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def reached(ties: dict[str, set[str]], start: str) -> set[str]:
    seen: set[str] = set()
    todo = [*ties[start]]
    while todo:
        name = todo.pop()
        if name not in seen:
            seen.add(name)
            todo += ties.get(name, ())
    return seen


def test_the_public_names_are_there_and_sorted() -> None:
    assert cowest_bench.__all__ == sorted(cowest_bench.__all__)
    for name in cowest_bench.__all__:
        assert getattr(cowest_bench, name) is not None


def public_definitions() -> Iterator[tuple[str, str]]:
    """Classes and functions of modules that others may import, and where."""
    for file in PACKAGE.rglob("*.py"):
        if "cli" in file.parts or "pocket" in file.parts:
            continue  # commands, and the embedded world
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
                yield node.name, str(file.relative_to(PACKAGE))


def test_no_two_public_things_have_one_name() -> None:
    """Save the same verb of several modules that are used by their names (``plan.run``, ``sweep.run``)."""
    places: dict[str, list[str]] = defaultdict(list)
    for name, file in public_definitions():
        places[name].append(file)
    several = {name: files for name, files in places.items() if len(files) > 1}
    by_module = {"run", "planned", "summarise"}
    assert {name: files for name, files in several.items() if name not in by_module} == {}


def test_help_loads_no_heavy_library() -> None:
    heavy = ("torch", "inspect_ai", "lm_eval", "streamlit", "transformers", "trl", "pandas")
    script = f"import cowest_bench.cli, sys; print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", sorted({p.stem for p in ROOT.glob("benchmarks/*.py")} - {"shared"})
)
def test_every_benchmark_starts(name: str) -> None:
    """Nothing else runs them, and they use names that the package may rename."""
    command = [sys.executable, f"benchmarks/{name}.py", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
