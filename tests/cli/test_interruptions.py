"""Runs that are killed, that meet a second writer, a full disk or a full terminal: nothing is lost or told wrongly."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from pag_inverse.data import files
from pag_inverse.data.files import TEMPORARY
from pag_inverse.data.images import BUNDLED, bundled_photograph, prepare, write_png
from pag_inverse.storage import run_store
from pag_inverse.storage.lock import lock

START = ["--task", "gaussian_deblur", "--solver", "dps", "--size", "32", "--steps", "2"]
COMMANDS = {
    "solve": [*START, "--input", "data", "--samples", "2"],
    "evaluate": [*START, "--dataset", "folder", "--root", "data"],
}
FOLDERS = {"solve": "", "evaluate": "gaussian_deblur_dps_pag"}  # of the run in its output
# Ends itself as kill -9 would, between a temporary file and its new name.
KILLED = """
import os, signal, sys
from importlib import import_module
replace, left = os.replace, [int(sys.argv[2])]
def end(*args):
    left[0] -= 1
    if left[0] == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    replace(*args)
os.replace = end
sys.exit(import_module(f"pag_inverse.cli.{sys.argv[1]}").main(sys.argv[3:]))
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "data").mkdir()
    for name in list(BUNDLED)[:3]:
        write_png(tmp_path / "data" / f"{name}.png", prepare(bundled_photograph(name), 32))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(command: str, output: str, *more: str) -> int:
    found: int = import_module(f"pag_inverse.cli.{command}").main([*COMMANDS[command], "--output", output, *more])
    return found


def results(folder: str) -> dict[str, bytes]:
    """The pictures and arrays of a run, by their path in it."""
    paths = [path for path in Path(folder).rglob("*") if path.suffix in (".png", ".npy") and path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


@pytest.mark.parametrize("command", COMMANDS)
def test_killed_between_a_temporary_file_and_its_name(command: str, here: Path) -> None:
    assert run(command, "whole") == 0
    whole = results("whole")
    for number, moment in enumerate((2, 11)):
        output = f"killed{number}"
        args = [sys.executable, "-c", KILLED, command, str(moment), *COMMANDS[command], "--output", output]
        assert subprocess.run(args, capture_output=True).returncode == -9
        assert len(list(Path(output).rglob(f"{TEMPORARY}*.tmp"))) == 1
        assert run(command, output) == 0
        assert results(output) == whole
        assert not list(Path(output).rglob("*.tmp"))


@pytest.mark.parametrize("command", COMMANDS)
def test_a_second_writer_is_refused_and_the_first_is_untouched(
    command: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path("out", FOLDERS[command])
    folder.mkdir(parents=True)
    held = lock(folder / ".rank-000.lock")
    before = sorted(Path("out").rglob("*"))
    assert run(command, "out") == 2
    told = capsys.readouterr().err.splitlines()[-1]
    assert told == f"{command}: {folder.absolute()}: another run is at work in this folder"
    assert sorted(Path("out").rglob("*")) == before
    held.release()
    assert run(command, "out") == 0


@pytest.mark.parametrize("command", COMMANDS)
def test_a_disk_that_is_full_has_one_status_and_the_same_command_goes_on(
    command: str, here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(command, "whole") == 0
    left = [6]

    def fills(path: Path, content: bytes) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(28, "No space left on device", str(path))
        files.write_whole(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(run_store, "write_whole", fills)
        assert run(command, "out") == 1
    told = capsys.readouterr().err.splitlines()[-1]
    assert "No space left" in told and told.endswith("what is finished is kept, and the same command goes on")
    kept = {name: os.stat(Path("out", name)).st_mtime_ns for name in results("out")}
    assert kept and run(command, "out") == 0 and results("out") == results("whole")
    assert any(os.stat(Path("out", name)).st_mtime_ns == time for name, time in kept.items())


def finished(command: str, output: str, **options: Any) -> subprocess.CompletedProcess[str]:
    script = f"import sys; from pag_inverse.cli.{command} import main; sys.exit(main(sys.argv[1:]))"
    args = [sys.executable, "-c", script, *COMMANDS[command], "--output", output]
    return subprocess.run(args, text=True, **options)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full on this machine")
def test_a_full_terminal_or_log_is_no_failure(here: Path) -> None:
    with open("/dev/full", "w") as full:
        found = finished("solve", "a", stdout=full, stderr=subprocess.PIPE)
        both = finished("evaluate", "b", stdout=full, stderr=full)
    assert found.returncode == both.returncode == 0 and "what was printed is lost" in found.stderr
    assert len(results("a")) > 3 < len(results("b")) and Path("b", "report.html").is_file()


def test_streams_that_are_closed_are_no_failure(here: Path) -> None:
    script = "import sys; from pag_inverse.cli.solve import main; sys.exit(main(sys.argv[1:]))"
    args = [sys.executable, "-c", script, *COMMANDS["solve"], "--output", "out"]
    assert subprocess.run(["bash", "-c", 'exec "$@" >&- 2>&-', "-", *args]).returncode == 0
    assert len(results("out")) > 3


def test_names_that_a_terminal_or_unicode_cannot_write_are_no_failure(here: Path) -> None:
    (here / "data" / "coffee.png").rename(here / "data" / "größe ☕.png")
    os.rename(b"data/chelsea.png", b"data/latin1 \xfc.png")
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "LC_ALL": "C", "PYTHONUTF8": "0"}
    found = finished("solve", "out", stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)
    assert found.returncode == 0, found.stderr
    assert Path("out", "größe ☕_restoration.png").is_file()
    names = results("out")
    assert run("solve", "utf8") == 0 and results("utf8").keys() == names.keys()
    assert run("evaluate", "evaluated") == 0 and Path("evaluated", "report.html").is_file()
    before = (here / "utf8" / "rank-000.jsonl").read_bytes()
    assert run("solve", "utf8") == 0 and (here / "utf8" / "rank-000.jsonl").read_bytes() == before


def test_where_one_process_ends_the_others_end_too(here: Path) -> None:
    """One is killed while it works; the other tells it in one line, and the same command goes on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    script = "import sys; from pag_inverse.cli.evaluate import main; sys.exit(main(sys.argv[1:]))"
    args = [sys.executable, "-c", script, *COMMANDS["evaluate"], "--steps", "20", "--output", "out"]
    shared = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
    first, second = (
        subprocess.Popen(args, env={**shared, "RANK": rank}, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for rank in ("0", "1")
    )
    record = Path("out", FOLDERS["evaluate"], "manifest.json")
    while not record.exists() and first.poll() is None:
        time.sleep(0.05)
    second.kill()
    told = first.communicate(timeout=300)[1]
    second.communicate()
    assert first.returncode == 1, told
    assert "Traceback" not in told
    assert "another process of this run has ended; what is finished is kept, and the same command goes on" in told
    assert run("evaluate", "out", "--steps", "20") == 0 and len(list(Path("out").rglob("restorations/*.png"))) == 3


def test_an_interruption_before_the_command_begins_is_one_line() -> None:
    """As while its modules are imported."""
    code = "import pag_inverse.cli; raise KeyboardInterrupt"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.returncode != 0 and ended.stderr == "stopped before anything was done\n"
