"""The README: every command parses, its suites are the shipped ones, its Python runs."""

from __future__ import annotations

import importlib
import re
import shlex
from pathlib import Path

import pytest
import yaml

import pag_inverse.evaluation as room
from pag_inverse.data.images import bundled_photograph, prepare, write_png
from pag_inverse.evaluation.plans import SUITES, load_suite

README = Path(room.__file__).with_name("README.md")
if not README.is_file():
    pytest.skip("the README is not beside the installed package", allow_module_level=True)
TEXT = README.read_text(encoding="utf-8")
COMMANDS = re.findall(r"scripts/(\w+)\.py (.*)", "\n".join(re.findall(r"```bash\n(.*?)```", TEXT, flags=re.DOTALL)))


@pytest.mark.parametrize("script, arguments", COMMANDS, ids=[arguments[:40] for _, arguments in COMMANDS])
def test_every_command_parses(script: str, arguments: str) -> None:
    assert importlib.import_module(f"pag_inverse.cli.{script}").parser().parse_args(shlex.split(arguments))


def test_the_suites_are_the_shipped_ones(tmp_path: Path) -> None:
    assert set(re.findall(r"^\| `(\w+)` \| the paper's four", TEXT, flags=re.MULTILINE)) == set(SUITES)
    (own,) = re.findall(r"```yaml\n(.*?)```", TEXT, flags=re.DOTALL)
    (tmp_path / "own.yaml").write_text(own)
    suite = load_suite(str(tmp_path / "own.yaml"))
    assert list(suite.tasks) == yaml.safe_load(own)["tasks"] and suite.priors == {"dps": "pixel"}


def test_the_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    (tmp_path / "photographs").mkdir()
    write_png(tmp_path / "photographs" / "coffee.png", prepare(bundled_photograph("coffee"), 64))
    names: dict[str, object] = {}
    exec(code.replace('{"steps": 100}', '{"steps": 2, "size": 64}'), names)
    assert names["status"] == 0 and (tmp_path / "runs" / "python" / "report.html").is_file()
    assert (tmp_path / "runs" / "python" / "gaussian_deblur_dps_pag" / "restorations" / "coffee.png").is_file()
