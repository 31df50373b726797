"""The import rule: operators know nothing of pag_inverse, whose layers import downwards only."""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

SETTINGS = {"yaml_reader", "settings", "config", "speed"}
FOUNDATION = {*SETTINGS, "images", "pictures", "schedule", "attention", "prefix", "streams", "json_lines"}
# What each part of pag_inverse may import of it. A new module needs a line, and so a place, here.
ALLOWED: dict[str, set[str]] = {
    "yaml_reader": set(),
    "settings": {"yaml_reader"},
    "config": {"yaml_reader", "settings"},
    "speed": {"yaml_reader", "settings"},
    "images": set(),
    "pictures": {"images"},
    "schedule": {"settings"},
    "attention": set(),
    "prefix": {"attention"},
    "streams": set(),
    "json_lines": set(),
    "batching": set(),
    "allocation": set(),
    "priors": FOUNDATION,
    "guidance": {*FOUNDATION, "priors"},
    "solvers": {*FOUNDATION, "priors", "guidance"},
    "restoration": {*FOUNDATION, "priors", "guidance", "solvers"},
    "rescaling": {*FOUNDATION, "priors", "solvers"},
    # Beside the way to a restoration: neither knows a solver.
    "training": {*FOUNDATION, "priors"},
    "metrics": FOUNDATION,
    "statistics": set(),
    "classical": set(),
    "datasets": {"images"},
    "shards": set(),
    "saved": {"images", "json_lines"},
    "perceptual": set(),
    "distribution": {"images"},
    "evaluation": {*FOUNDATION, "metrics", "perceptual", "distribution", "saved", "statistics"},
}
TOP_LEVEL = {
    "pag_inverse",
    "operators",
    "configs",
    "scripts",
    "tests",
    "setup.cfg",
    "README.md",
    "pyproject.toml",
    "constraints.txt",
    "LICENSE",
    ".ci",
    ".gitignore",
}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def sources() -> dict[str, Path]:
    folders = ("operators", "pag_inverse", "scripts")
    return {module_name(path): path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))}


@cache
def imports(name: str) -> frozenset[str]:
    """Every module that a source names, in functions too; `from a import b` is a.b where that is a module."""
    path = sources()[name]
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            full = [f"{base}.{alias.name}" for alias in node.names]
            found.update(item if item in sources() else base for item in full)
    return frozenset(found)


def part(module: str) -> str:
    """The part of pag_inverse that a module belongs to; empty for pag_inverse itself."""
    return module.partition(".")[2].partition(".")[0]


def of(package: str) -> list[str]:
    return [name for name in sources() if name.split(".")[0] == package]


def test_the_reader_of_imports_reads():
    assert "operators.base" in imports("operators")
    assert "pag_inverse.settings" in imports("pag_inverse.config")


@pytest.mark.parametrize("name", of("operators"))
def test_operators_stand_alone(name):
    roots = {module.split(".")[0] for module in imports(name)}
    assert roots - set(sys.stdlib_module_names) <= {"operators", "torch", "numpy", "scipy"}


@pytest.mark.parametrize("name", of("pag_inverse"))
def test_layers_import_downwards(name):
    inside = {part(module) for module in imports(name) if module.split(".")[0] == "pag_inverse"}
    outside = {module.split(".")[0] for module in imports(name)}
    assert not outside & {"scripts", "tests"}
    if part(name) == "":
        assert "cli" not in inside
    elif part(name) != "cli":
        assert part(name) in ALLOWED, f"{name} has no place in the layers"
        assert inside <= ALLOWED[part(name)] | {part(name)}


def test_only_scripts_import_the_commands():
    for name in sources():
        if any(module.startswith("pag_inverse.cli") for module in imports(name)):
            assert part(name) == "cli" or name.split(".")[0] == "scripts", name


def test_no_module_imports_itself_round_a_corner():
    graph = {name: {m for m in imports(name) if m in sources() and m != name} for name in sources()}
    list(TopologicalSorter(graph).static_order())  # raises CycleError


def test_scripts_are_launchers():
    for name in of("scripts"):
        assert {m for m in imports(name) if m.split(".")[0] in ("operators", "pag_inverse")} <= {
            m for m in sources() if m.startswith("pag_inverse.cli.")
        }
        assert len(sources()[name].read_text(encoding="utf-8").splitlines()) <= 15, f"{name}: move it to the cli"


def test_the_top_level_is_as_agreed():
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode or not listed.stdout:
        pytest.skip("not a git checkout")
    assert {Path(name).parts[0] for name in listed.stdout.strip("\0").split("\0")} <= TOP_LEVEL


def test_heavy_libraries_wait_until_they_are_needed():
    """They take longer to import than torch."""
    code = "import sys; from pag_inverse import *; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "torch" in loaded
    heavy = {"diffusers", "transformers", "matplotlib", "torchvision", "skimage", "lpips", "scipy"}
    assert not heavy & {name.split(".")[0] for name in loaded}
