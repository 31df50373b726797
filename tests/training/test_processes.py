"""Several processes end together, whatever one of them meets: none waits for one that is gone."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from pag_inverse.storage.lock import lock

Arguments = Callable[..., list[str]]
# Forks the processes of a run for each line that it reads: what takes long to import is imported once.
SERVER = """
import json, os, signal, sys
import diffusers.models.autoencoders.autoencoder_kl, pag_inverse.training.run
from pag_inverse.cli.train import main

def child(rank, asked):
    os.environ.update(asked["environment"], RANK=str(rank), LOCAL_RANK=str(rank))
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(os.open(f"{asked['errors']}.{rank}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
    status = 1
    signal.alarm(120)  # one that waits for ever is killed
    try:
        exec(asked["spoil"], {"RANK": str(rank), "os": os})
        status = main(asked["arguments"])
    except BaseException:
        import traceback
        traceback.print_exc()
    finally:
        os._exit(status)

for line in sys.stdin:
    asked = json.loads(line)
    children = []
    for rank in range(int(asked["environment"]["WORLD_SIZE"])):
        pid = os.fork()
        if not pid:
            child(rank, asked)
        children.append(pid)
    print(json.dumps([os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]), flush=True)
"""
AT_STEP = """
from pag_inverse.training.trainer import Trainer
train_step = Trainer.train_step
def spoiled(self):
    if self.step == 2 and RANK == '{rank}':
        {what}
    return train_step(self)
Trainer.train_step = spoiled
"""
FULL = """
import errno
if RANK == '0':
    from pag_inverse.training import state, trainer
    def full(folder, content):
        if content['step'] == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        state.write_state(folder, content)
    trainer.write_state = full
"""
UNREADABLE = """
from pag_inverse.training import crops
def read_image(path):
    raise ValueError(f'{path}: cannot be read: broken')
if RANK == '1':
    crops.read_image = read_image
"""
LOSS = "good = self.objective; self.objective = lambda *given: good(*given) * float('nan')"
DIVERGED = AT_STEP.format(rank=1, what=LOSS) + "from pag_inverse.training import trainer; trainer.DROPPED_LIMIT = 3"
FAILED = AT_STEP.format(rank=1, what="self.objective = lambda *_: [].pop()")
KILLED = AT_STEP.format(rank=1, what="os.kill(os.getpid(), 9)")
FIRST_KILLED = AT_STEP.format(rank=0, what="os.kill(os.getpid(), 9)")


Found = list[tuple[int, str]]  # the exit status and the stderr of each process
Train = Callable[..., Found]


@pytest.fixture(scope="module")
def train(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Train]:
    """Trains in processes that meet; `spoil` is code that runs first in each, where RANK is its number."""
    errors = tmp_path_factory.mktemp("errors") / "stderr"
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert server.stdin is not None and server.stdout is not None

    def train(arguments: list[str], spoil: str = "", world: int = 2) -> Found:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        environment = {"WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        asked = {"arguments": arguments, "spoil": spoil, "environment": environment, "errors": str(errors)}
        server.stdin.write(json.dumps(asked) + "\n")
        server.stdin.flush()
        statuses = json.loads(server.stdout.readline())
        return [(status, Path(f"{errors}.{rank}").read_text()) for rank, status in enumerate(statuses)]

    yield train
    server.stdin.close()
    server.wait(timeout=60)


@pytest.mark.parametrize(
    ("spoil", "statuses", "told", "step"),
    [
        (UNREADABLE, (2, 2), "cannot be read: broken", None),
        (FULL, (1, 1), "No space left", 1),
        (DIVERGED, (2, 2), "diverged at step 5", 5),
        (KILLED, (1, -9), "another process of this run has ended", 2),
        (FIRST_KILLED, (-9, 1), "another process of this run has ended", 2),
    ],
    ids=["a picture", "a full disk", "diverged", "killed", "the first killed"],
)
def test_all_end_with_one_line(
    spoil: str,
    statuses: tuple[int, int],
    told: str,
    step: int | None,
    train: Train,
    short_run: Arguments,
    tmp_path: Path,
) -> None:
    arguments = short_run(tmp_path / "run", steps=100)
    found = train(arguments, spoil)
    assert tuple(status for status, _ in found) == statuses, found
    for status, error in found:
        assert status == -9 or (told in error and len(error.splitlines()) == 1), error
    if step is None:
        assert not (tmp_path / "run").exists()
    else:
        assert torch.load(tmp_path / "run" / "state.pt", weights_only=True)["step"] == step


def test_a_fault_of_one_process_ends_all(train: Train, short_run: Arguments, tmp_path: Path) -> None:
    """Also one that nobody has foreseen."""
    (first, told), (second, trace) = train(short_run(tmp_path / "run", steps=100), FAILED)
    assert first == 1 and "process 1 failed: pop from empty list" in told and len(told.splitlines()) == 1
    assert second == 1 and "IndexError" in trace


def test_one_process_holds_the_lock_for_all(train: Train, short_run: Arguments, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    held = lock(tmp_path / "run" / ".train.lock")
    for status, error in train(short_run(tmp_path / "run")):
        assert status == 2 and "another run is at work" in error and len(error.splitlines()) == 1
    held.release()
    assert [path.name for path in (tmp_path / "run").iterdir()] == [".train.lock"]


def test_two_processes_go_on_and_one_may_mend(train: Train, short_run: Arguments, tmp_path: Path) -> None:
    run, arguments = tmp_path / "run", short_run(tmp_path / "run", steps=4)
    assert [status for status, _ in train(arguments, FIRST_KILLED)] == [-9, 1]
    [(status, error)] = train(arguments, world=1)
    assert status == 2 and "in 2 processes (now 1)" in error
    assert [status for status, _ in train(arguments)] == [0, 0]
    whole = short_run(tmp_path / "whole", steps=4)
    assert [status for status, _ in train(whole)] == [0, 0]
    weights = run / "vae" / "diffusion_pytorch_model.safetensors"
    assert weights.read_bytes() == (tmp_path / "whole" / weights.relative_to(run)).read_bytes()
    card = (run / "README.md").read_text()
    shutil.rmtree(run / "vae")
    (run / "README.md").unlink()
    assert [status for status, _ in train(arguments, world=1)] == [0]
    assert weights.is_file() and (run / "README.md").read_text() == card
