"""The run store: what is finished stays, what is damaged is made again, and nobody else's folder is touched."""

from __future__ import annotations

import json
import os
import signal
import threading
from pathlib import Path

import pytest

from pag_inverse.storage.entries import Line
from pag_inverse.storage.finding import find_runs
from pag_inverse.storage.run_store import RunStore

SETTINGS = {"steps": 3, "layers": ("middle_block.1",), "sigma": 0.05}


def store_at(folder: Path, **settings: object) -> RunStore:
    return RunStore(folder, kind="solve", settings={**SETTINGS, **settings})


def make(folder: Path, *keys: str) -> RunStore:
    with store_at(folder).open() as store:
        for key in keys:
            store.finish(key, {"psnr": 30.0}, {"restoration": (f"{key}_restoration.png", key.encode())})
    return store


def test_the_same_settings_go_on_where_they_were(tmp_path: Path) -> None:
    make(tmp_path / "out", "b", "a")
    store = store_at(tmp_path / "out")
    store.check()
    with store.open():
        survey = store.survey(["a", "b", "c"])
        assert (survey.finished, survey.pending, survey.failed, survey.damaged) == ({"a", "b"}, ["c"], {}, [])
        store.finish("c", {}, {})
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["format"] == "pag_inverse run" and manifest["kind"] == "solve" and "torch" in manifest["versions"]
    assert manifest["settings"] == {"steps": 3, "layers": ["middle_block.1"], "sigma": 0.05}
    assert list(manifest["images"]) == ["a", "b", "c"]
    assert manifest["images"]["a"]["files"] == {"restoration": "a_restoration.png"}
    assert (tmp_path / "out" / "a_restoration.png").read_bytes() == b"a"


def test_a_file_with_the_same_content_is_not_written_again(tmp_path: Path) -> None:
    make(tmp_path, "a")
    before = (tmp_path / "a_restoration.png").stat().st_mtime_ns
    make(tmp_path, "a")
    assert (tmp_path / "a_restoration.png").stat().st_mtime_ns == before


def test_other_settings_are_refused_by_name_and_nothing_is_written(tmp_path: Path) -> None:
    make(tmp_path / "out", "a")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    other = store_at(tmp_path / "out", steps=4, sigma=None)
    for refused in (other.check, other.open):
        with pytest.raises(ValueError, match=r"sigma 0\.05 \(now None\); steps 3 \(now 4\).*--overwrite"):
            refused()
    with pytest.raises(ValueError, match=r"kind 'solve' \(now 'search'\)"):
        RunStore(tmp_path / "out", kind="search", settings=SETTINGS).check()
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    (tmp_path / "out" / "captions.jsonl").write_text("mine")
    other.check(overwrite=True)
    with other.open(overwrite=True):
        assert other.survey(["a"]).pending == ["a"]
    assert (tmp_path / "out" / "captions.jsonl").read_text() == "mine"
    assert not (tmp_path / "out" / "a_restoration.png").exists()  # it was of the other settings
    assert RunStore.of(tmp_path / "out").settings["steps"] == 4


def test_inputs_whose_content_changed_are_refused(tmp_path: Path) -> None:
    with store_at(tmp_path / "out").open() as store:
        store.finish("a", {"input_sha256": "11"})
        store.finish("b", {"error": "cannot be read", "retry": True})
    store.check(inputs={"a": "11", "b": "22", "new": "33"})
    with pytest.raises(ValueError, match=r"other inputs: 1 changed \(a\)"):
        store.check(inputs={"a": "12"})


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "photographs").mkdir()
    (tmp_path / "photographs" / "a.png").write_bytes(b"mine")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "manifest.json").write_text('{"name": "a web page"}')
    (tmp_path / "file").write_text("in the way")
    for name, message in (
        ("photographs", "not empty and holds no run"),
        ("other", "holds no run"),
        ("file", "file is a file"),
        ("file/below", "file is a file"),
    ):
        for overwrite in (False, True):
            with pytest.raises(ValueError, match=message):
                store_at(tmp_path / name).check(overwrite)
    store_at(tmp_path / "new" / "below").check()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "other", "photographs"]


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        if os.access(tmp_path, os.W_OK):
            pytest.skip("this user may write anywhere")
        with pytest.raises(ValueError, match="cannot be written"):
            store_at(tmp_path / "out").check()
    finally:
        tmp_path.chmod(0o700)


def test_a_damaged_manifest_is_not_taken_for_a_new_folder(tmp_path: Path) -> None:
    make(tmp_path, "a")
    for content in (b"{", b""):
        (tmp_path / "manifest.json").write_bytes(content)
        with pytest.raises(ValueError, match=r"without a readable manifest\.json; --overwrite"):
            store_at(tmp_path).check()
    (tmp_path / "manifest.json").unlink()
    with pytest.raises(ValueError, match="--overwrite"):
        store_at(tmp_path).check()
    store_at(tmp_path).check(overwrite=True)


def test_damaged_lines_and_files_are_told_and_made_again(tmp_path: Path) -> None:
    store = make(tmp_path, "a", "b", "c", "d")
    (tmp_path / "a_restoration.png").write_bytes(b"other")
    (tmp_path / "b_restoration.png").unlink()
    record = tmp_path / "rank-000.jsonl"
    record.write_bytes(record.read_bytes()[:-20])
    found = store.survey("abcd")
    assert found.finished == {"c"} and found.pending == ["a", "b", "d"]
    told = "\n".join(found.damaged)
    assert len(found.damaged) == 3 and "1 damaged lines" in told
    assert "a: a_restoration.png is damaged; it is made again" in told and "b_restoration.png is missing" in told
    make(tmp_path, "a", "b", "d")
    assert store.survey("abcd").finished == set("abcd")


def test_a_failed_item_counts_as_failed_each_time(tmp_path: Path) -> None:
    with store_at(tmp_path).open() as store:
        store.finish("diverged", {"error": "left the finite numbers at step 3"})
        store.finish("unreadable", {"error": "cannot be read", "retry": True})
    for _ in range(2):
        found = store_at(tmp_path).survey(["diverged", "unreadable"])
        assert found.finished == set() and found.pending == ["unreadable"]
        assert found.failed == {"diverged": "left the finite numbers at step 3"}
        assert set(store.failures()) == {"diverged", "unreadable"}
    make(tmp_path, "unreadable")
    assert set(store.failures()) == {"diverged"}


def test_the_latest_line_of_all_ranks_counts_and_a_finished_one_before_a_failed_one(tmp_path: Path) -> None:
    make(tmp_path, "a")
    (tmp_path / "rank-003.jsonl").write_bytes((tmp_path / "rank-000.jsonl").read_bytes())
    second = RunStore(tmp_path, kind="solve", settings=SETTINGS, rank=1, world=2)
    with second.open():
        second.finish("a", {"psnr": 31.0}, {"restoration": ("a_restoration.png", b"new")})
        second.finish("a", {"error": "later"})
    assert second.entries()["a"]["psnr"] == 31.0 and second.survey(["a"]).finished == {"a"}


def test_one_writer_a_rank(tmp_path: Path) -> None:
    with store_at(tmp_path).open():
        with pytest.raises(ValueError, match="another run is at work in this folder"):
            store_at(tmp_path).open()
        RunStore(tmp_path, kind="solve", settings=SETTINGS, rank=1, world=2).open().close()
    later = RunStore(tmp_path, kind="solve", settings=SETTINGS, rank=2, world=3).open()
    with pytest.raises(ValueError, match="another run is at work"):
        store_at(tmp_path).open()  # a process of a larger run is left
    later.close()
    store_at(tmp_path).open().close()


def test_a_killed_writer_leaves_its_items_and_no_lock(tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:
        store = store_at(tmp_path / "out").open()
        store.finish("a", {}, {"restoration": ("a.png", b"a")})
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    store = store_at(tmp_path / "out")
    store.check()
    with store.open():
        assert store.survey("ab").finished == {"a"}


def test_an_interruption_summarises_what_is_finished(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), store_at(tmp_path).open() as store:
        store.finish("a", {}, {})
        raise KeyboardInterrupt
    assert list(json.loads((tmp_path / "manifest.json").read_text())["images"]) == ["a"]
    store_at(tmp_path).open().close()


def test_a_disk_error_between_files_and_line_costs_the_item(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pag_inverse.storage import run_store

    def full(path: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device", str(path))

    store = make(tmp_path, "a")
    with monkeypatch.context() as patch, pytest.raises(OSError, match=r"No space left.*b\.png"), store.open():
        patch.setattr(run_store, "write_whole", full)
        store.finish("b", {}, {"restoration": ("b.png", b"b")})
    assert store.survey("ab").finished == {"a"} and not list(tmp_path.glob("*.tmp"))
    make(tmp_path, "b")
    assert store.survey("ab").finished == {"a", "b"}


def test_files_may_lie_beside_the_run_and_move_with_it(tmp_path: Path) -> None:
    root = tmp_path / "root"
    with RunStore(root / "run", kind="evaluate", settings={}, root=root).open() as store:
        store.finish("a", {}, {"truth": ("truths/a.png", b"truth")})
    assert (root / "truths" / "a.png").is_file()
    root.rename(tmp_path / "moved")
    (found,) = find_runs(tmp_path / "moved", "evaluate")
    assert (
        found.name == "run"
        and found.path(found.entries()["a"], "truth").read_bytes() == b"truth"
        and found.survey("a").finished == {"a"}
    )
    assert find_runs(tmp_path / "moved" / "run", "evaluate")[0].folder == found.folder
    with pytest.raises(ValueError, match="no solve run in it"):
        find_runs(tmp_path / "moved", "solve")
    with pytest.raises(ValueError, match="no run in it"):
        RunStore.of(tmp_path)


def test_further_lines_of_what_was_saved(tmp_path: Path) -> None:
    make(tmp_path, "a")
    for rank in range(2):
        store = RunStore(tmp_path, kind="solve", settings=SETTINGS, rank=rank, world=2)
        store.append("scores", {"key": rank})
    store.append("scores", {"key": "another shape"})

    class Scores(Line):
        key: int

    assert [line["key"] for line in store.lines("scores", Scores)] == [0, 1]
    store.forget("scores")
    assert store.lines("scores", Scores) == [] and list(store.entries()) == ["a"]


def test_strict_json(tmp_path: Path) -> None:
    def refuse(text: str) -> None:
        raise AssertionError(f"{text} is not JSON")

    with store_at(tmp_path, floor=float("inf")).open() as store:
        store.finish("a", {"curve": [1.0, float("nan"), float("-inf")]}, {})
    for text in [(tmp_path / "manifest.json").read_text(), *(tmp_path / "rank-000.jsonl").read_text().splitlines()]:
        json.loads(text, parse_constant=refuse)
    assert store.entries()["a"]["curve"] == [1.0, None, None]
    store_at(tmp_path, floor=float("inf")).check()


def test_readers_see_whole_lines_while_a_writer_works(tmp_path: Path) -> None:
    store, torn = store_at(tmp_path).open(), []

    def read() -> None:
        while len(entries := store.entries()) < 50:
            torn.extend(store.survey(entries).damaged)

    reader = threading.Thread(target=read)
    reader.start()
    for i in range(50):
        store.finish(f"{i}", {"text": "x" * 500}, {})
    reader.join()
    store.close()
    assert torn == []


def test_a_clock_that_runs_backwards_orders_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, time in enumerate((1000.0, 500.0, 2.0)):
        monkeypatch.setattr("pag_inverse.storage.run_store.time.time", lambda time=time: time)
        with RunStore(tmp_path, kind="solve", settings=SETTINGS, rank=0, world=1).open() as store:
            store.finish("a", {"psnr": float(number)}, {"restoration": ("a.png", bytes([number]))})
    # Also where the lines of an earlier opening lie in a file that is read later.
    (tmp_path / "rank-001.jsonl").write_bytes((tmp_path / "rank-000.jsonl").read_bytes().splitlines(True)[0])
    assert store.entries()["a"]["psnr"] == 2.0 and store.survey("a").finished == {"a"}


def test_temporary_files_of_killed_writers_go_and_those_of_living_ones_stay(tmp_path: Path) -> None:
    from pag_inverse.data import files

    make(tmp_path, "a")
    (tmp_path / "below").mkdir()
    dead, alive = (tmp_path / "below" / f"{files.TEMPORARY}{name}.tmp" for name in ("dead", "alive"))
    dead.write_bytes(b"a part")
    with alive.open("wb") as file:
        assert files.hold(file)
        make(tmp_path, "b")
        assert not dead.exists() and alive.exists()
    make(tmp_path, "c")
    assert not alive.exists()


def test_names_that_a_file_system_cannot_hold_are_found_first(tmp_path: Path) -> None:
    store = store_at(tmp_path / "out")
    store.check(names=["x" * 255, "a/b"])
    for name in ("x" * 256, "ü" * 128, "a/" * 2048):
        with pytest.raises(ValueError, match="too long"):
            store.check(names=[name])
    assert not (tmp_path / "out").exists()
