"""Memory that tensors have left stays with the process while pictures are small; it comes in large pages."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

import pag_inverse


def plain() -> dict[str, str]:
    """This process's environment, without what commands set in it."""
    return {name: value for name, value in os.environ.items() if name != "THP_MEM_ALLOC_ENABLE"}


FAULTS = """
import resource, sys, torch
from pag_inverse.runtime.allocation import settle_freed_memory
torch.set_num_threads(1)

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        torch.zeros(2**24).add_(1)  # 64 MiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

settle_freed_memory(int(sys.argv[1]) ** 2, sys.argv[2] == "True")
faults()
print(faults())
"""


def page_faults(side: int, low_memory: bool) -> int:
    """The page faults of five tensors in a new process; in one process, what an earlier setting kept would serve."""
    command = [sys.executable, "-c", FAULTS, str(side), str(low_memory)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True, env=plain()).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_freed_memory_is_used_again_for_pictures_of_up_to_256_px() -> None:
    large, kept, low_memory = page_faults(512, False), page_faults(256, False), page_faults(256, True)
    # Of five tensors, one may lie elsewhere: the kernel takes memory back when it is short.
    assert kept < large / 3 and kept < low_memory / 3


HUGE = """
import pag_inverse.cli, torch
x = torch.ones(2**26)  # 256 MiB
print(sum("VmFlags" in line and " hg" in line for line in open("/proc/self/smaps")))
"""


def advised_mappings(**environment: str) -> int:
    """How much memory, in mappings, a command's process with a large tensor has asked large pages for."""
    done = subprocess.run(
        [sys.executable, "-c", HUGE], capture_output=True, text=True, check=True, env=plain() | environment
    )
    return int(done.stdout)


@pytest.mark.skipif(
    not all(Path(path).exists() for path in ("/sys/kernel/mm/transparent_hugepage", "/proc/self/smaps")),
    reason="the system has no large pages to ask for",
)
def test_commands_ask_for_large_pages_unless_told_not_to() -> None:
    assert advised_mappings() > 0
    assert advised_mappings(THP_MEM_ALLOC_ENABLE="0") == 0


def importers() -> set[str]:
    """The modules of the package that import allocation."""
    root = Path(pag_inverse.__file__).parent
    texts = {path.relative_to(root).with_suffix("").as_posix(): path.read_text() for path in root.rglob("*.py")}
    return {name for name, text in texts.items() if "runtime.allocation import" in text}


def test_only_commands_change_the_process() -> None:
    """Command lines and the engines of commands; a library function leaves the caller's process as it is."""
    engines = {
        "app/restoring",
        "benchmark/reference",
        "benchmark/worker",
        "cli/__init__",
        "evaluation/run",
        "experiments/ablation",
        "experiments/comparison",
        "experiments/search",
        "experiments/sweep",
        "generation/run",
        "restoration/run",
    }
    assert importers() <= engines
