"""Who the processes of a run are, and that every image is somebody's."""

from __future__ import annotations

import pytest

from pag_inverse.runtime.processes import Processes


@pytest.mark.parametrize("world", [1, 2, 3, 8])
def test_every_image_is_dealt_once(world: int) -> None:
    ids = [f"{i:02d}" for i in range(7)]
    parts = [Processes(rank, world).deal(ids) for rank in range(world)]
    assert sorted(image_id for part in parts for image_id in part) == ids
    assert all(part == ids[rank::world] for rank, part in enumerate(parts))


def test_the_environment_of_a_launcher() -> None:
    assert Processes.of({}) == Processes(0, 1, 0)
    launched = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "MASTER_ADDR": "host"}
    assert Processes.of(launched) == Processes(5, 8, 1)
    with pytest.raises(ValueError, match="RANK"):
        Processes.of({"RANK": "2", "WORLD_SIZE": "2", "MASTER_ADDR": "host"})
    with pytest.raises(ValueError, match="torchrun"):
        Processes.of({"RANK": "0", "WORLD_SIZE": "2"})
    with pytest.raises(ValueError, match="RANK is 'x'"):
        Processes.of({"RANK": "x"})


def test_one_process_agrees_with_itself() -> None:
    assert Processes().agreed(lambda: 3) == 3 and Processes().gather("x") == ["x"]

    def refused() -> None:
        raise OSError(13, "Permission denied", "out")

    with pytest.raises(OSError, match="Permission denied"):
        Processes().agreed(refused)
