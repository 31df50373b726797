"""Operators and noises by name: what is drawn, what is checked, what an error says."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
import torch

from operators import (
    NOISES,
    OPERATORS,
    Blur,
    BoxInpainting,
    BoxInpaintingSettings,
    Clip,
    ClipSettings,
    ComposeSettings,
    Diagonal,
    GaussianBlur,
    GaussianBlurSettings,
    Grayscale,
    GrayscaleSettings,
    IdentitySettings,
    Inpainting,
    Jpeg,
    JpegSettings,
    MotionBlur,
    MotionBlurSettings,
    PhaseRetrieval,
    PhaseRetrievalSettings,
    RandomInpainting,
    RandomInpaintingSettings,
    SuperResolution,
    SuperResolutionSettings,
    check_settings,
    draw_box,
    make_operator,
    random_mask,
)

SHAPE = (3, 64, 64)
SETTINGS: dict[str, dict[str, object]] = {
    "box_inpainting": {"box": None, "margin": 8, "position": None},
    "super_resolution": {"scale": 8},
    "gaussian_blur": {"kernel_size": 61, "std": 3.0},
    "motion_blur": {"kernel_size": 61, "intensity": 0.5, "center": False},
    "identity": {},
    "random_inpainting": {"missing": 0.7},
    "grayscale": {"weights": [0.2, 0.3, 0.5]},
    "compose": {
        "operators": [
            {"name": "motion_blur", "settings": {"kernel_size": 61, "intensity": 0.5}},
            {"name": "box_inpainting", "settings": {"margin": 8}},
            {"name": "super_resolution", "settings": {"scale": 4}},
        ]
    },
}
NONLINEAR: dict[str, dict[str, object]] = {
    "clip": {"gain": 2.0},
    "jpeg": {"quality": 30},
    "phase_retrieval": {"oversampling": 2.0},
}
ALL = SETTINGS | NONLINEAR


def streams(*seeds: int) -> list[np.random.Generator]:
    return [np.random.default_rng(seed) for seed in seeds]


def test_every_operator_of_the_table_is_tried() -> None:
    assert ALL.keys() == OPERATORS.keys()
    assert set(NOISES) == {"gaussian", "none", "poisson"}


@pytest.mark.parametrize("name", ALL)
def test_what_is_drawn_depends_on_the_images_own_generator(name: str) -> None:
    x = torch.linspace(-1, 1, 2 * 3 * 64 * 64).reshape(2, *SHAPE)
    both = make_operator(name, SHAPE, ALL[name], streams(5, 7))
    assert type(both) is OPERATORS[name] and both.linear == (name in SETTINGS) and both.in_shape == SHAPE
    y = both.forward(x)
    for i, seed in enumerate((5, 7)):
        alone = make_operator(name, SHAPE, ALL[name], streams(seed)).forward(x[i : i + 1])
        torch.testing.assert_close(alone, y[i : i + 1], rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["box_inpainting", "motion_blur", "random_inpainting", "compose"])
def test_two_images_get_two_masks_or_kernels(name: str) -> None:
    x = torch.rand(1, *SHAPE, generator=torch.Generator().manual_seed(0)).expand(2, -1, -1, -1)
    y = make_operator(name, SHAPE, SETTINGS[name], streams(5, 7)).forward(x)
    assert (y[0] - y[1]).abs().max() > 0.1


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("project", ["published", "adjoint"])
def test_every_operator_takes_the_choice_of_gluing(name: str, project: str) -> None:
    operator = make_operator(name, SHAPE, {**SETTINGS[name], "project": project}, streams(1))
    y = torch.ones(1, *operator.out_shape)
    torch.testing.assert_close(operator.glue(y), operator.adjoint(y) if project == "adjoint" else torch.ones(1, *SHAPE))


def test_a_position_is_kept() -> None:
    settings = {"box": None, "margin": 16, "position": [3, 5, 20, 30]}
    y = make_operator("box_inpainting", SHAPE, settings, streams(1, 2)).forward(torch.ones(2, *SHAPE))
    assert (y[:, :, 3:23, 5:35] == 0).all() and y.sum() == 2 * 3 * (64 * 64 - 20 * 30)


def test_boxes_are_drawn_as_published() -> None:
    rng = np.random.default_rng(0)
    boxes = np.array([draw_box((3, 256, 256), rng) for _ in range(4000)])
    assert (boxes[:, 2:] == 128).all()
    for corner in boxes[:, :2].T:  # uniform on 16 ... 111
        assert corner.min() == 16 and corner.max() == 111
        assert abs(corner.mean() - 63.5) < 2.0 and abs(corner.std() - 27.7) < 1.0


@pytest.mark.parametrize(
    ("shape", "side", "margin", "allowed"),
    [
        ((3, 64, 64), None, 16, {(16, 16, 32, 32)}),
        ((1, 8, 9), 4, 2, {(2, 2, 4, 4)}),
        ((1, 8, 12), None, 1, {(top, left, 4, 6) for top in (1, 2) for left in (1, 2, 3, 4)}),
    ],
)
def test_boxes_of_other_images(
    shape: tuple[int, int, int], side: int | None, margin: int, allowed: set[tuple[int, ...]]
) -> None:
    rng = np.random.default_rng(0)
    assert {draw_box(shape, rng, side, margin) for _ in range(100)} == allowed


def test_random_masks_miss_a_drawn_share_of_the_pixels() -> None:
    missing = np.array([1 - random_mask((3, 20, 30), rng).mean() for rng in streams(*range(200))])
    assert missing.min() > 0.29 and missing.max() < 0.7
    assert abs(missing.mean() - 0.5) < 0.03 and abs(missing.std() - 0.4 / np.sqrt(12)) < 0.02


FAULTS: dict[str, tuple[str, dict[str, object], str]] = {
    "unknown operator": ("blurr", {}, "unknown operator 'blurr'; there are box_inpainting"),
    "unknown setting": (
        "super_resolution",
        {"scale": 8, "size": 1},
        "SuperResolution: size is an unknown key; allowed: scale, project",
    ),
    "missing setting": ("gaussian_blur", {"std": 3.0}, "GaussianBlur: kernel_size is missing"),
    "text for a number": ("gaussian_blur", {"kernel_size": 61, "std": "3"}, "std is '3'"),
    "fraction for a whole": ("super_resolution", {"scale": 8.0}, "scale is 8.0; it must be a valid integer"),
    "truth for a whole": ("super_resolution", {"scale": True}, "scale is True"),
    "null for a number": ("gaussian_blur", {"kernel_size": 61, "std": None}, "std is None"),
    "nan": ("gaussian_blur", {"kernel_size": 61, "std": float("nan")}, "std is nan"),
    "no blur": ("gaussian_blur", {"kernel_size": 61, "std": 0}, "std is 0; it must be greater than or equal to 0.01"),
    "even kernel": ("gaussian_blur", {"kernel_size": 60, "std": 3.0}, "kernel_size is 60; it must be an odd number"),
    "number for a truth": (
        "motion_blur",
        {"kernel_size": 61, "intensity": 0.5, "center": 1},
        "center is 1; it must be a valid boolean",
    ),
    "strong": (
        "motion_blur",
        {"kernel_size": 61, "intensity": 1.5, "center": False},
        "intensity is 1.5; it must be less than or equal to 1",
    ),
    "scale": ("super_resolution", {"scale": 65}, "a whole number from 1 to 64"),
    "gluing": (
        "super_resolution",
        {"scale": 8, "project": "none"},
        "project is 'none'; it must be 'published' or 'adjoint'",
    ),
    "position": (
        "box_inpainting",
        {"box": 1, "margin": 0, "position": [1, 2, 3]},
        "it must be top, left, height and width",
    ),
    "position below 0": ("box_inpainting", {"position": [-1, 2, 3, 4]}, "the last two at least 1"),
    "position of nothing": ("box_inpainting", {"position": [1, 2, 0, 4]}, "the last two at least 1"),
    "position of a fraction": ("box_inpainting", {"position": [1, 2, 3.5, 4]}, "position.2 is 3.5"),
    "whole image": ("box_inpainting", {"box": 64, "margin": 0}, "covers the whole image"),
    "negative margin": ("box_inpainting", {"margin": -1}, "margin is -1; it must be greater than or equal to 0"),
    "no mapping": ("super_resolution", [8], r"SuperResolution: \[8\] is not a mapping of settings"),  # type: ignore[dict-item]
    "outside": ("box_inpainting", {"box": 1, "margin": 0, "position": [60, 0, 5, 5]}, "inside the image"),
    "no room": ("box_inpainting", {"box": 40, "margin": 16, "position": None}, "smaller box or margin"),
    "all missing": ("random_inpainting", {"missing": 1.0}, "mask has no known pixel|mask 0 has no known pixel"),
    "more than all": ("random_inpainting", {"missing": 1.2}, "missing.0 is 1.2; it must be less than or equal to 1"),
    "shares": ("random_inpainting", {"missing": [0.7, 0.3]}, "the lower number must come first"),
    "no share": ("random_inpainting", {"missing": True}, "missing is True"),
    "two weights": ("grayscale", {"weights": [1.0, 2.0]}, "2 weights for an image of 3 channels; give one for each"),
    "no weight": ("grayscale", {"weights": [0.0, 0.0, 0.0]}, "a weight must not be 0: nothing would be measured"),
    "weight of nan": ("grayscale", {"weights": [float("nan"), 0.0, 0.0]}, "weights.0 is nan"),
    "no quality": ("jpeg", {}, "Jpeg: quality is missing"),
    "quality": ("jpeg", {"quality": 0}, "quality is 0; it must be greater than or equal to 1"),
    "best quality": ("jpeg", {"quality": 101}, "quality is 101; it must be less than or equal to 100"),
    "subsampling": ("jpeg", {"quality": 9, "subsampling": "4:1:1"}, "subsampling is '4:1:1'; it must be '4:2:0' or"),
    "no light": ("clip", {"gain": 0.0}, "gain is 0.0; it must be greater than 0"),
    "undersampling": ("phase_retrieval", {"oversampling": 0.5}, "oversampling is 0.5; it must be greater than or"),
}


@pytest.mark.parametrize(("name", "settings", "message"), FAULTS.values(), ids=FAULTS)
def test_a_faulty_setting_is_one_clear_error(name: str, settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        make_operator(name, SHAPE, settings, streams(1))
    assert "\n" not in str(error.value)


HOLE, EYE = np.ones((64, 64)), np.eye(3)
WRONG: dict[str, tuple[Callable[[], object], str]] = {
    "mask of another size": (lambda: Inpainting(HOLE[1:], SHAPE), r"mask of shape \(63, 64\)"),
    "mask with channels": (lambda: Inpainting(np.ones((1, 3, 64, 64)), SHAPE), "mask of shape"),
    "mask of greys": (lambda: Inpainting(HOLE / 2, SHAPE), "other values than 0"),
    "mask of 255": (lambda: Inpainting(HOLE * 255, SHAPE), "other values than 0"),
    "kernel of even side": (lambda: Blur(np.ones((3, 4)), SHAPE), "both sides odd"),
    "kernel with channels": (lambda: Blur(np.ones((1, 3, 5, 5)), SHAPE), "kernel of shape"),
    "kernel of nan": (lambda: Blur(EYE * np.nan, SHAPE), "NaN"),
    "kernel too large": (lambda: Blur(np.ones((129, 3)), SHAPE), "64 x 64 pixels is too small"),
    "mask that knows nothing": (lambda: Inpainting(HOLE * 0, SHAPE), "mask has no known pixel: nothing is measured"),
    "one such mask": (lambda: Inpainting(np.stack([HOLE, HOLE * 0]), SHAPE), "mask 1 has no known pixel"),
    "box over the image": (lambda: BoxInpainting(SHAPE, [(0, 0, 64, 64)]), "covers the whole image"),
    "kernel of zeros": (lambda: Blur(EYE * 0, SHAPE), "kernel is 0 everywhere: nothing is measured"),
    "one such kernel": (lambda: Blur(np.stack([EYE, EYE * 0]), SHAPE), "kernel 1 is 0 everywhere"),
    "complex kernel": (lambda: Blur(EYE * 1j, SHAPE), "kernel is complex; it must be real"),
    "no kernel": (lambda: Blur(np.ones((0, 3, 3)), SHAPE), "empty"),
    "no stream": (lambda: MotionBlur(SHAPE, []), "no random generator"),
    "no box": (lambda: BoxInpainting(SHAPE, []), "no box"),
    "flat shape": (lambda: GaussianBlur((64, 64), 61, 3.0), "channels, height, width"),  # type: ignore[arg-type]
    "empty shape": (lambda: SuperResolution((3, 0, 64), 8), "at least 1"),
    "gluing": (lambda: Blur(EYE, SHAPE, project="transpose"), "published, adjoint"),
    "no stream of masks": (lambda: RandomInpainting(SHAPE, []), "no random generator"),
    "weights of another size": (
        lambda: Diagonal(HOLE[1:], SHAPE),
        r"weights of shape \(63, 64\); they are \(64, 64\),",
    ),
    "weights of nan": (lambda: Diagonal(HOLE * np.nan, SHAPE), "NaN"),
    "weights with channels": (lambda: Diagonal(np.ones((2, 64, 64)), SHAPE), "weights of shape"),
    "jpeg of two channels": (lambda: Jpeg((2, 64, 64), 10), "2 channels has no JPEG; it must have 1"),
    "quality": (lambda: Jpeg(SHAPE, 0), "quality is 0"),
    "gain": (lambda: Clip(SHAPE, -1.0), "gain is -1.0"),
    "oversampling": (lambda: PhaseRetrieval(SHAPE, 0.5), "oversampling is 0.5"),
    "grey of grey": (lambda: Grayscale((1, 64, 64)), "3 weights for an image of 1 channels"),
    "shares": (lambda: random_mask(SHAPE, np.random.default_rng(0), 0.7, 0.3), "lowest"),
}


@pytest.mark.parametrize(("build", "message"), WRONG.values(), ids=WRONG)
def test_a_users_own_arrays_are_checked(build: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        build()
    assert "\n" not in str(error.value)


def test_own_arrays_may_be_tensors_of_any_kind() -> None:
    x = torch.rand(1, *SHAPE)
    mask = torch.rand(64, 64) > 0.5
    expected = Inpainting(mask.double().numpy(), SHAPE).forward(x)
    assert torch.equal(Inpainting(mask, SHAPE).forward(x), expected)
    assert torch.equal(Inpainting(mask.to(torch.uint8)[None, None], SHAPE).forward(x), expected)
    doubled = Blur(torch.tensor([[2]]), SHAPE).forward(x)
    assert torch.equal(doubled, 2 * x)


def test_own_kernels_may_be_flipped_views_lists_or_negative() -> None:
    kernel, x = np.random.default_rng(0).normal(size=(3, 5)), torch.rand(1, *SHAPE)
    expected = Blur(np.ascontiguousarray(kernel[::-1, ::-1]), SHAPE).forward(x)
    assert torch.equal(Blur(kernel[::-1, ::-1], SHAPE).forward(x), expected)
    assert torch.equal(Blur(kernel[::-1, ::-1].astype(">f8"), SHAPE).forward(x), expected)
    assert torch.equal(Blur(kernel[::-1, ::-1].tolist(), SHAPE).forward(x), expected)  # type: ignore[arg-type]


OBJECTS: dict[str, object] = {
    "box_inpainting": BoxInpaintingSettings(None, 8),
    "super_resolution": SuperResolutionSettings(8),
    "gaussian_blur": GaussianBlurSettings(61, 3),
    "motion_blur": MotionBlurSettings(61, 0.5),
    "identity": IdentitySettings(),
    "random_inpainting": RandomInpaintingSettings((0.7, 0.7)),
    "grayscale": GrayscaleSettings((0.2, 0.3, 0.5)),
    "clip": ClipSettings(2),
    "jpeg": JpegSettings(30, "4:2:0"),
    "phase_retrieval": PhaseRetrievalSettings(),
    "compose": ComposeSettings(tuple(SETTINGS["compose"]["operators"])),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("name", ALL)
def test_a_mapping_and_an_object_are_the_same_settings(name: str) -> None:
    assert check_settings(name, ALL[name]) == OBJECTS[name] == check_settings(name, OBJECTS[name])
    x = torch.linspace(-1, 1, 3 * 64 * 64).reshape(1, *SHAPE)
    made = [make_operator(name, SHAPE, settings, streams(5)).forward(x) for settings in (ALL[name], OBJECTS[name])]
    assert torch.equal(*made)


def test_settings_of_another_operator() -> None:
    with pytest.raises(ValueError, match=r"SuperResolution: GaussianBlurSettings.* is not a mapping"):
        SuperResolution.from_settings(SHAPE, GaussianBlurSettings(61, 3.0), streams(1))


def test_an_operator_of_arrays_has_no_settings() -> None:
    with pytest.raises(ValueError, match="Blur has no settings: build it from its arrays"):
        Blur.from_settings(SHAPE, {}, streams(1))


def test_settings_take_numpys_numbers() -> None:
    settings = MotionBlurSettings(np.int64(9), np.float32(0.5), np.True_)  # type: ignore[arg-type]
    assert settings == MotionBlurSettings(9, 0.5, True) and type(settings.kernel_size) is int
    position = tuple(np.array([1, 2, 3, 4]))
    assert BoxInpaintingSettings(position=position) == BoxInpaintingSettings(position=(1, 2, 3, 4))


def test_the_settings_checks_are_read_without_torch() -> None:
    code = "import sys, operators; from operators.validation import settings; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"
