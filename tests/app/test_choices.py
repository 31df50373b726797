"""What a visitor chooses, as the request of the solve command."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from pag_inverse.app.choices import (
    DRAWN,
    Choices,
    Files,
    command,
    counts_photons,
    estimated,
    make_request,
    read_number,
    solver_choices,
    task_choices,
)
from pag_inverse.cli.solve import parser, request_of
from pag_inverse.settings import TASKS, load_task, validated

FILES = Files(Path("/visitor/a b.png"), Path("/visitor/m.png"), Path("/visitor/k.npy"))


def test_every_task_can_be_chosen_and_has_a_label() -> None:
    names = [name for _, name in task_choices(False)]
    assert sorted(names) == sorted(TASKS)
    assert set(names) - set(DRAWN) == {name for _, name in task_choices(True)}
    labels = [label for label, _ in task_choices(False)]
    assert len(set(labels)) == len(labels) and all(labels)


@pytest.mark.parametrize("prior", ["pixel", "latent"])
@pytest.mark.parametrize("task", TASKS)
def test_every_solver_that_is_offered_has_its_row(task: str, prior: str) -> None:
    auto, *named = solver_choices(task, prior)
    assert auto == "auto" and named
    for solver in named:
        assert load_task(task, "natural", solver, image_size=256, pag=True).hyperparameters is not None


@pytest.mark.parametrize(
    "choices",
    [
        {"task": "gaussian_deblur", "samples": 3, "steps": 5, "seed": 7, "pag": 0},
        {"task": "gaussian_deblur", "explain": True},
        {"task": "motion_deblur", "size": None, "speed": "draft", "prior": "latent"},
        {"task": "inpaint", "own": True, "sigma": 0.02},
        {"task": "inpaint", "own": True, "mask_convention": "white-missing"},
        {"task": "deblur", "own": True, "solver": "dps"},
        {"task": "poisson_denoise", "size": 64, "peak": 50, "sigma": 0.1},
        {"task": "super_resolution_x4", "own": True},
    ],
)
def test_the_command_line_asks_for_the_same(choices: dict[str, object]) -> None:
    """But for the folder of the files, which the download has under inputs/."""
    request = make_request(validated(Choices, choices), FILES)
    words = shlex.split(command(request, FILES))
    assert words[:2] == ["pag-inverse", "solve"]
    again = request_of(parser().parse_args(words[2:]))
    for name in type(request).__dataclass_fields__:
        ours, theirs = getattr(request, name), getattr(again, name)
        assert (ours.name, theirs.name) if isinstance(ours, Path) else ours == theirs, name
    assert ("a b.png" in " ".join(words)) and (again.mask is not None) == (choices["task"] == "inpaint")


def test_what_a_measurement_needs() -> None:
    bare = Files(Path("y.png"))
    with pytest.raises(ValueError, match="paint over it, upload a mask, or name its colour"):
        make_request(Choices("inpaint", own=True), bare)
    with pytest.raises(ValueError, match="marked twice"):
        make_request(Choices("inpaint", own=True, remove_colour="#ff00ff"), FILES)
    with pytest.raises(ValueError, match="the kernel is missing"):
        make_request(Choices("deblur", own=True), bare)
    assert make_request(Choices("gaussian_deblur", own=True), bare).kernel is None  # the task's own


def test_a_colour_in_place_of_a_mask() -> None:
    files, choices = Files(Path("y.png")), Choices("inpaint", own=True, remove_colour="255,0,255")
    request = make_request(choices, files)
    assert (request.remove_colour, request.mask) == ("255,0,255", None)
    again = request_of(parser().parse_args(shlex.split(command(request, files))[2:]))
    assert again.remove_colour == "255,0,255"
    other_task = make_request(Choices("denoise", own=True, remove_colour="255,0,255"), files)
    assert other_task.remove_colour is None


def test_the_field_of_sigma_says_what_an_empty_one_means() -> None:
    assert estimated("denoise") and estimated("inpaint") and not estimated("jpeg")


def test_photons_take_no_sigma() -> None:
    assert [task for task in TASKS if counts_photons(task)] == ["poisson_denoise"]


@pytest.mark.parametrize(
    ("text", "number"), [("", None), (None, None), (" 0.05 ", 0.05), ("0,05", 0.05), ("30", 30), ("1e-2", 0.01)]
)
def test_numbers_as_they_are_typed(text: str | None, number: float | None) -> None:
    assert read_number("sigma", text) == number


@pytest.mark.parametrize("text", ["abc", "1 2", "0.05.1"])
def test_what_is_no_number(text: str) -> None:
    with pytest.raises(ValueError, match=r"sigma is .* it must be a number, or empty"):
        read_number("sigma", text)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"samples": 0}, "samples is 0"),
        ({"samples": 99}, "samples is 99"),
        ({"steps": 1001}, "steps is 1001"),
        ({"steps": 2.5}, "steps is 2.5"),
        ({"sigma": -1}, "sigma is -1"),
        ({"pag": float("nan")}, "pag is nan"),
        ({"prior": "ffhq"}, "prior is 'ffhq'"),
        ({"remove_colour": "pink"}, "remove_colour is 'pink'"),
    ],
)
def test_values_that_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        validated(Choices, {"task": "denoise", **values})
    assert "\n" not in str(error.value)
