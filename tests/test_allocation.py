"""Memory that tensors have left stays with the process while pictures are small, and goes back otherwise."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource, torch
from pag_inverse.allocation import settle_freed_memory
torch.set_num_threads(1)

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        torch.zeros(2**24).add_(1)  # 64 MiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

counts = []
for pixels, low_memory in ((512 * 512, False), (256 * 256, False), (256 * 256, True)):
    settle_freed_memory(pixels, low_memory)
    faults()
    counts.append(faults())
print(*counts)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_freed_memory_is_used_again_for_pictures_of_up_to_256_px() -> None:
    done = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True)
    large, kept, low_memory = map(int, done.stdout.split())
    assert kept < large / 10 and kept < low_memory / 10
