"""How many images fit at once: by trying, by measuring, and what is done where too many were taken."""

from __future__ import annotations

import pytest
import torch

from pag_inverse.runtime import batching
from pag_inverse.runtime.batching import TensorMemory, largest_batch, split_where_full


@pytest.mark.parametrize("most", [1, 2, 3, 7, 8, 11, 64])
@pytest.mark.parametrize("limit", [1, 5, 8, 64])
def test_a_gpu_is_tried(most: int, limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def step(n: int) -> None:
        tried.append(n)
        if n > most:
            raise torch.cuda.OutOfMemoryError("full")

    assert largest_batch(step, "cuda", limit) == min(most, limit)
    assert len(tried) <= 14 and all(n <= limit for n in tried)


@pytest.mark.parametrize(("available", "processes", "expected"), [(64, 1, 8), (8, 1, 4), (8, 2, 2), (0.5, 1, 1)])
def test_a_processor_is_measured(
    available: float, processes: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step that holds 1 MiB an image, of which half of what is available may be taken, 8 at most."""
    monkeypatch.setattr(batching, "available_memory", lambda: int(available * 2**20))
    assert largest_batch(lambda n: torch.zeros(n, 2**18), "cpu", 100, processes) == expected
    assert largest_batch(lambda n: torch.zeros(n, 2**18), "cpu", 3, processes) == min(3, expected)


def test_the_peak_of_what_is_alive() -> None:
    """Three tensors of 1 MiB one after the other, never more than two at once; a view is no tensor more."""
    with TensorMemory() as memory:
        x = torch.zeros(2**18)
        x = x.view(2, -1) + 1
        x = (x + 1).t()
        del x
    assert memory.peak == 2 * 2**20
    assert memory.alive == 0


def test_too_many_images_are_halved() -> None:
    done = []

    def run(batch: list[int]) -> None:
        if len(batch) > 2:
            raise torch.cuda.OutOfMemoryError("full")
        done.append(list(batch))

    split_where_full(run, [1, 2, 3, 4, 5])
    assert done == [[1, 2], [3], [4, 5]] or done == [[1, 2], [3, 4], [5]]


def test_one_image_that_is_too_much() -> None:
    def run(batch: list[int]) -> None:
        raise torch.cuda.OutOfMemoryError("full")

    with pytest.raises(ValueError, match="--low-memory"):
        split_where_full(run, [1, 2])


def test_available_memory_is_some() -> None:
    assert 2**20 < batching.available_memory() < 2**50
