"""The import rule: a folder imports only from those above it; sizes and names that keep the house readable."""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# The rooms of the house from the ground up: each may import from those before it.
ORDER = (
    "settings",
    "data",
    "runtime",
    "schedule",
    "metrics",
    "storage",
    "reports",
    "priors",
    "guidance",
    "problem",
    "solvers",
    "restoration",
    "generation",
    "adapters",
    "pipelines",
    "evaluation",
    "training",
    "benchmark",
    "experiments",
    "app",
    "cli",
)
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
LARGEST_FILE, LARGEST_CLI = 300, 1150  # lines
LARGEST_SHARE = 1 / 6  # of the code, for one room


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


def room(module: str) -> str:
    """The room of pag_inverse that a module belongs to; empty for pag_inverse itself."""
    return module.partition(".")[2].partition(".")[0]


def of(package: str) -> list[str]:
    return [name for name in sources() if name.split(".")[0] == package]


def lines(name: str) -> int:
    return len(sources()[name].read_text(encoding="utf-8").splitlines())


def test_the_reader_of_imports_reads():
    assert "operators.validation" in imports("operators.base")
    assert "pag_inverse.settings.reader" in imports("pag_inverse.settings.task")


@pytest.mark.parametrize("name", of("operators"))
def test_operators_stand_alone(name):
    roots = {module.split(".")[0] for module in imports(name)}
    allowed = {"operators", "torch", "numpy", "scipy", "pydantic", "typing_extensions"}
    assert roots - set(sys.stdlib_module_names) <= allowed


@pytest.mark.parametrize("name", [name for name in of("pag_inverse") if room(name)])
def test_rooms_import_from_those_above_them_only(name):
    assert room(name) in ORDER, f"{name} has no place in the order of the rooms"
    inside = {room(module) for module in imports(name) if module.split(".")[0] == "pag_inverse"} - {""}
    assert inside <= set(ORDER[: ORDER.index(room(name)) + 1])
    assert not {module.split(".")[0] for module in imports(name)} & {"scripts", "tests"}


def test_settings_import_no_torch():
    code = "import sys, pag_inverse.settings; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_no_module_imports_itself_round_a_corner():
    graph = {name: {m for m in imports(name) if m in sources() and m != name} for name in sources()}
    list(TopologicalSorter(graph).static_order())  # raises CycleError


@pytest.mark.parametrize("name", of("scripts"))
def test_scripts_are_launchers(name):
    ours = {m for m in imports(name) if m.split(".")[0] in ("operators", "pag_inverse")}
    assert ours <= {m for m in sources() if m.startswith("pag_inverse.cli.")}
    assert lines(name) <= 15, f"{name}: move it to the cli"


def test_sizes():
    total = sum(map(lines, sources()))
    assert {name: lines(name) for name in sources() if lines(name) > LARGEST_FILE} == {}
    rooms = {known: sum(lines(n) for n in of("pag_inverse") if room(n) == known) for known in ORDER}
    rooms["operators"] = sum(map(lines, of("operators")))
    assert {known: count for known, count in rooms.items() if count > LARGEST_SHARE * total} == {}
    assert rooms["cli"] <= LARGEST_CLI


def texts(name: str) -> set[str]:
    """The string constants of a module's code, docstrings apart."""
    tree = ast.parse(sources()[name].read_text(encoding="utf-8"))
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docstrings = {ast.get_docstring(node, clean=False) for node in ast.walk(tree) if isinstance(node, documented)}
    found = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    return found - docstrings


@pytest.mark.parametrize("solver", ["dps", "psld", "ldps", "daps", "latent_daps", "reddiff"])
def test_a_solver_is_named_by_its_own_file_and_the_registry_alone(solver):
    named = {name for name in of("pag_inverse") if solver in texts(name)}
    assert named <= {f"pag_inverse.solvers.{solver}", "pag_inverse.solvers"}


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
    heavy = {"diffusers", "transformers", "matplotlib", "torchvision", "skimage", "lpips", "scipy", "jinja2"}
    assert not heavy & {name.split(".")[0] for name in loaded}
