"""Locks are held by one process and freed by its end."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pag_inverse.storage.lock import is_held, lock


def test_a_lock_is_held_by_one_and_freed_by_its_end(tmp_path: Path) -> None:
    path = tmp_path / ".rank-000.lock"
    held = lock(path)
    with pytest.raises(ValueError, match=f"{tmp_path}: another run"):
        lock(path)
    assert is_held(path)
    held.release()
    assert not is_held(path)
    child = os.fork()
    if child == 0:
        lock(path)
        os._exit(9)  # without a word, as a kill would
    os.waitpid(child, 0)
    lock(path).release()
