"""restore(): one call for pictures of any kind, measurements, problems and priors of any kind."""

from __future__ import annotations

import copy
import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from diffusers import DDPMPipeline, DDPMScheduler

from operators import (
    OPERATORS,
    Blur,
    GaussianBlur,
    GaussianNoise,
    Grayscale,
    Inpainting,
    Jpeg,
    LinearOperator,
    NoNoise,
    Operator,
    SuperResolution,
    gaussian_kernel,
)
from pag_inverse import (
    DPS,
    PSLD,
    SOLVERS,
    InverseProblem,
    LatentPrior,
    NoGuidance,
    PerturbedAttentionGuidance,
    PixelPrior,
    load_prior,
    restore,
    simulate,
)
from pag_inverse.data.images import bundled_photograph, prepare, to_uint8
from pag_inverse.restoration.defaults import task_like
from pag_inverse.solvers import DiffPIR

SIDE = 64


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    return to_uint8(prepare(bundled_photograph("astronaut"), SIDE))


def test_a_pil_image_in_one_line(picture: np.ndarray) -> None:
    given = PIL.Image.fromarray(picture)
    output = restore(given, task="motion_deblur", steps=2)
    assert isinstance(output.images, PIL.Image.Image) and output.images.size == given.size
    assert output.x.shape == (1, 1, 3, SIDE, SIDE) and output.residuals.shape == (1, 1) and not output.failed


def test_every_kind_of_picture_comes_back_as_it_was_given(picture: np.ndarray) -> None:
    """The same restoration, whatever holds the picture."""
    image = torch.from_numpy(picture.transpose(2, 0, 1) / 127.5 - 1).float()
    kinds: dict[str, Any] = {
        "uint8": picture,
        "uint8 batch": picture[None],
        "pil": PIL.Image.fromarray(picture),
        "floats": image.numpy(),
        "float64 batch": image.numpy().astype(np.float64)[None],
        "tensor": image,
        "double batch": image.double()[None],
        "list": [PIL.Image.fromarray(picture)],
    }
    outputs = {name: restore(given, task="gaussian_deblur", solver="dps", steps=2) for name, given in kinds.items()}
    for name, given in kinds.items():
        found = outputs[name].images
        assert type(found) is type(given)
        if not isinstance(given, list):
            assert getattr(found, "shape", None) == getattr(given, "shape", None)
            assert getattr(found, "dtype", None) == getattr(given, "dtype", None)
        torch.testing.assert_close(outputs[name].x, outputs["uint8"].x, atol=2e-2, rtol=0)
    assert np.array_equal(outputs["uint8"].images, np.asarray(outputs["pil"].images))


def test_a_path_with_a_bar_and_a_warning_of_another_range(
    picture: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    PIL.Image.fromarray(picture).save(tmp_path / "photo.png")
    given = {"task": "gaussian_deblur", "solver": "dps", "steps": 2}
    expected = restore(picture, **given)
    assert "step" not in capsys.readouterr().err and not caplog.records  # no terminal, no bar
    for path in (tmp_path / "photo.png", str(tmp_path / "photo.png")):
        found = restore(path, progress=True, num_samples=2, **given)
        assert "4/4" in capsys.readouterr().err
        assert isinstance(found.images, PIL.Image.Image) and torch.equal(found.x[:, :1], expected.x)
    restore(picture.transpose(2, 0, 1) / 255.0, **given)
    assert "are taken as [-1, 1]" in caplog.text


def test_a_measurement_with_ones_own_operator(picture: np.ndarray, pixel: PixelPrior) -> None:
    class Halved(Operator):
        """Every second row is seen."""

        def _forward(self, x: torch.Tensor) -> torch.Tensor:
            return x[..., ::2, :]

    operator = Halved((3, SIDE, SIDE), (3, SIDE // 2, SIDE))
    y = operator.forward(torch.from_numpy(picture.transpose(2, 0, 1) / 127.5 - 1).float()[None])
    output = restore(y, operator=operator, sigma=0.05, prior=pixel, solver=DPS(0.5), steps=2)
    assert output.x.shape == (1, 1, 3, SIDE, SIDE)
    assert isinstance(output.problem.noise, GaussianNoise) and output.problem.noise.sigma == 0.05


def test_a_grey_photograph_is_a_measurement_of_brightness(picture: np.ndarray, pixel: PixelPrior) -> None:
    """Given as grey, as grey in three channels, or in colour, whose brightness counts: an image of three comes back."""
    grey = PIL.Image.fromarray(picture).convert("L")
    operator = Grayscale((3, 64, 64))
    outputs = [
        restore(given, operator=operator, sigma=0.05, prior=pixel, solver="diffpir", steps=2)
        for given in (grey, grey.convert("RGB"), PIL.Image.fromarray(picture))
    ]
    assert outputs[0].x.shape == (1, 1, 3, 64, 64) and outputs[0].problem.y.shape == (1, 1, 64, 64)
    assert torch.equal(outputs[0].x, outputs[1].x)
    torch.testing.assert_close(outputs[2].problem.y, outputs[0].problem.y, rtol=0, atol=2 / 255)


@pytest.mark.parametrize(
    ("operator", "task"),
    [
        (SuperResolution((3, 48, 48), 2), "super_resolution_x2"),
        (SuperResolution((3, 48, 48), 8), "super_resolution"),
        (SuperResolution((3, 48, 48), 6), "super_resolution"),  # of no task: the paper's
        (Blur(np.ones((3, 3)), (3, 48, 48)), "gaussian_deblur"),
        (Inpainting(np.eye(48), (3, 48, 48)), "box_inpainting"),
        (Grayscale((3, 48, 48)), "colorize"),
        (Jpeg((3, 48, 48), 30), "jpeg"),
        (LinearOperator(lambda x: x[..., ::2], (3, 48, 48)), "gaussian_deblur"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_an_operator_takes_the_rows_of_the_task_that_is_most_like_it(operator: Operator, task: str) -> None:
    assert task_like(operator) == task


def test_a_batch_of_tensors_with_several_samples(pixel: PixelPrior) -> None:
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    operator = Blur(gaussian_kernel(9, 1.5), (3, 32, 32))
    problem = simulate(x, operator, GaussianNoise(0.05))
    output = restore(problem, prior=pixel, solver=DPS(0.5), steps=3, num_samples=3, seed=5)
    assert output.x.shape == (2, 3, 3, 32, 32) and output.residuals.shape == (2, 3)
    torch.testing.assert_close(output.mean, output.x.mean(dim=1))
    torch.testing.assert_close(output.std, output.x.std(dim=1))
    assert float(output.std.max()) > 0
    single = restore(problem.select([1]), prior=pixel, solver=DPS(0.5), steps=3, num_samples=3, seed=5, names=["1"])
    torch.testing.assert_close(single.x[0], output.x[1], atol=1e-3, rtol=0)
    assert float(restore(problem, prior=pixel, solver=DPS(0.5), steps=1).std.abs().max()) == 0


def test_a_pipeline_is_a_prior_and_stays_as_it_was(pixel: PixelPrior) -> None:
    unet = copy.deepcopy(pixel.unet).train().requires_grad_(True)
    pipeline = DDPMPipeline(unet=unet, scheduler=DDPMScheduler(beta_start=1e-4, beta_end=0.02))
    x = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    operator = Blur(gaussian_kernel(9, 1.5), (3, 32, 32))
    problem = simulate(x, operator, GaussianNoise(0.05), draw=lambda shape: torch.zeros(shape))
    guidance = PerturbedAttentionGuidance(1.0, ["mid_block.attentions.0"])
    expected = restore(problem, prior=pixel, solver=DPS(0.5), guidance=guidance, steps=2).x
    for prior in (pipeline, unet):
        found = restore(problem, prior=prior, solver=DPS(0.5), guidance=guidance, steps=2).x
        torch.testing.assert_close(found, expected)
    assert pipeline.unet is unet and unet.training and all(p.requires_grad for p in unet.parameters())


@pytest.mark.parametrize("true", [True, np.True_, torch.tensor(True)], ids=["bool", "numpy", "torch"])
def test_a_callback_stops_the_run(pixel: PixelPrior, true: Any) -> None:
    x = torch.rand(1, 3, 32, 32) * 2 - 1
    problem = simulate(x, Inpainting(torch.ones(32, 32), (3, 32, 32)))
    seen: list[int] = []
    output = restore(
        problem,
        prior=pixel,
        solver=DPS(0.5),
        steps=9,
        num_samples=3,
        callback=lambda done, steps, step: (seen.append(done), true if done == 2 else None)[1],
    )
    assert seen == [1, 2] and output.stopped and output.x.shape == (1, 1, 3, 32, 32)


def test_the_default_is_the_row_of_the_embedded_prior(picture: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps, step sizes for this side, and PAG come from configs/tasks, by the task or by the operator's kind.

    The solver does, too, but where sigma is not known or A is not linear.
    """
    seen: list[Any] = []

    def stop(problem: Any, model: Any, solver: Any, steps: int, *rest: Any, **named: Any) -> Any:
        seen.append((solver, steps, model.guidance))
        raise RuntimeError("far enough")

    class Squared(Operator):
        """A measurement that is not linear in the image."""

        linear = False

        def _forward(self, x: torch.Tensor) -> torch.Tensor:
            return x**2

    monkeypatch.setattr(sys.modules["pag_inverse.restoration.restore"], "run_chain", stop)
    y = torch.zeros(1, 3, SIDE, SIDE)
    box = Inpainting(torch.eye(SIDE), (3, SIDE, SIDE))
    calls: list[Any] = [
        lambda: restore(picture, task="motion_deblur", solver="dps"),
        lambda: restore(y, operator=box, sigma=0.1, solver="dps"),
        lambda: restore(picture, task="motion_deblur", solver="psld"),
        lambda: restore(picture, task="motion_deblur"),
        lambda: restore(y, operator=box, sigma=0.1, solver="auto"),
        lambda: restore(picture, task="motion_deblur", prior="latent"),
        lambda: restore(y, operator=box),
        lambda: restore(y, operator=Squared((3, SIDE, SIDE), (3, SIDE, SIDE)), sigma=0.1),
    ]
    for call in calls:
        with pytest.raises(RuntimeError, match="far enough"):
            call()
    (motion, steps, guidance), (box, _, _), (latent, _, _), *automatic = seen
    assert (motion.eta, steps, motion.step_limit) == (84 * SIDE / 256, 100, "noise")
    assert (guidance.s, guidance.layers) == (2.0, ("up_blocks.1.attentions.1",))
    assert [type(solver) for solver, *_ in automatic] == [DiffPIR, DiffPIR, PSLD, DPS, DPS]
    assert automatic[2][0] == latent
    assert (box.eta, box.spacing) == (30 * SIDE / 256, "even")
    assert latent.gamma == 12 * SIDE / 256 and latent.renoise_prediction


@pytest.mark.parametrize(
    ("given", "named", "message"),
    [
        (np.zeros((64, 64, 3), np.uint8), {}, "give one of three"),
        (np.zeros((64, 64, 3), np.uint8), {"task": "zoom"}, "unknown task 'zoom'"),
        (np.zeros((64, 64, 3), np.int32), {"task": "motion_deblur"}, "int32 of shape"),
        (np.full((3, 64, 64), 255.0), {"task": "motion_deblur"}, r"must lie in \[-1, 1\]"),
        (np.zeros((64, 64), np.uint8), {"task": "motion_deblur"}, r"is \(H, W, 3\)"),
        ("picture.png", {"task": "motion_deblur"}, "picture.png: no such file"),
        (7, {"task": "motion_deblur"}, "a int is no picture"),
        ([], {"task": "motion_deblur"}, "at least one"),
        (np.zeros((1, 64, 64), np.float32), {"task": "gaussian_deblur"}, "with 1 channels; it takes 3 channels"),
        (np.zeros((64, 64, 3), np.uint8), {"task": "gaussian_deblur", "steps": 0}, "from 1 to 1000"),
        (np.zeros((64, 64, 3), np.uint8), {"task": "gaussian_deblur", "num_samples": 0}, "num_samples is 0"),
        (np.zeros((64, 64, 3), np.uint8), {"task": "gaussian_deblur", "solver": "ddrm"}, "unknown solver 'ddrm'"),
        (np.zeros((64, 64, 3), np.uint8), {"task": "gaussian_deblur", "prior": "nowhere"}, "unknown prior"),
        (np.zeros((64, 64, 3), np.uint8), {"task": "gaussian_deblur", "names": ["a", "b"]}, "different names"),
        (np.zeros((64, 64, 3), np.uint8), {"task": "gaussian_deblur", "solver": DPS}, "solver is"),
        (
            np.zeros((64, 64, 3), np.uint8),
            {"task": "gaussian_deblur", "solver": "dps", "prior": "latent"},
            "needs a pixel",
        ),
        (np.zeros((64, 64, 3), np.uint8), {"task": "gaussian_deblur", "guidance": NoGuidance}, "guidance is"),
        (np.zeros((64, 64, 3), np.uint8), {"task": "gaussian_deblur", "callback": "done"}, "callback is"),
    ],
)
def test_bad_input(given: Any, named: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        restore(given, **named)
    assert "\n" not in str(error.value)


SHAPE = (3, 32, 32)
OPERATOR = Inpainting(torch.ones(32, 32), SHAPE)
BAD_PROBLEMS: dict[str, tuple[Any, str]] = {
    "no tensor": (lambda: InverseProblem(np.zeros((1, *SHAPE)), OPERATOR), "y is a ndarray"),  # type: ignore[arg-type]
    "no operator": (lambda: InverseProblem(torch.zeros(1, *SHAPE), torch.eye(3)), "operator is a Tensor"),  # type: ignore[arg-type]
    "no noise": (lambda: InverseProblem(torch.zeros(1, *SHAPE), OPERATOR, 0.05), "noise is a float"),  # type: ignore[arg-type]
    "another shape": (lambda: InverseProblem(torch.zeros(1, 3, 31, 32), OPERATOR), "measurements of shape"),
    "no batch": (lambda: InverseProblem(torch.zeros(SHAPE), OPERATOR), "measurements of shape"),
    "whole numbers": (lambda: InverseProblem(torch.zeros(1, *SHAPE, dtype=torch.uint8), OPERATOR), "floating point"),
    "0 to 255": (lambda: InverseProblem(torch.full((1, *SHAPE), 255.0), OPERATOR), "values up to 255"),
    "nan": (lambda: InverseProblem(torch.full((1, *SHAPE), float("nan")), OPERATOR), "NaN or infinite"),
    "none": (lambda: InverseProblem(torch.zeros(0, *SHAPE), OPERATOR), "holds no image"),
    "another count": (
        lambda: InverseProblem(torch.zeros(3, *SHAPE), Inpainting(torch.ones(2, 32, 32), SHAPE)),
        "built for 2",
    ),
}


@pytest.mark.parametrize(("build", "message"), BAD_PROBLEMS.values(), ids=BAD_PROBLEMS)
def test_every_mismatch_is_an_error_of_the_problem(build: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        build()
    assert "\n" not in str(error.value)


def test_the_residual_and_the_noise_level_of_a_problem() -> None:
    mask = torch.zeros(32, 32)
    mask[:, :8] = 1
    problem = InverseProblem(torch.full((2, *SHAPE), 0.5), Inpainting(mask, SHAPE), GaussianNoise(0.1))
    assert torch.allclose(problem.noise_level(), torch.full((2,), 0.1 * (3 * 32 * 8) ** 0.5))
    x = torch.zeros(2, *SHAPE)
    assert torch.allclose(problem.residual(x), torch.full((2,), 0.5 * (3 * 32 * 8) ** 0.5))
    assert torch.allclose(problem.relative_residual(x), torch.full((2,), 5.0))
    unknown = InverseProblem(problem.y, problem.operator, NoNoise())
    assert torch.allclose(unknown.relative_residual(x), torch.full((2,), 0.5))


def test_noise_in_the_hole_is_a_choice_of_simulated_problems() -> None:
    mask = torch.zeros(32, 32)
    mask[:, :8] = 1
    operator, x = Inpainting(mask, SHAPE), torch.zeros(1, *SHAPE)
    assert bool((simulate(x, operator, GaussianNoise(0.1)).y != 0).all())
    inside = simulate(x, operator, GaussianNoise(0.1), noise_in_hole=False).y
    assert bool((inside[..., 8:] == 0).all()) and bool((inside[..., :8] != 0).all())


OPERATOR_FILE = '''
"""Every second column is seen."""

from operators import Operator
from operators.base import Projection
from operators.validation import settings


@settings
class ColumnsSettings:
    project: Projection = "published"


class Columns(Operator):
    Settings = ColumnsSettings

    @classmethod
    def _from_settings(cls, in_shape, settings, rngs):
        channels, height, width = in_shape
        return cls(in_shape, (channels, height, width // 2), project=settings.project)

    def _forward(self, x):
        return x[..., ::2]
'''
SOLVER_FILE = '''
"""One step of the prior as a denoiser, then a step towards the data."""

from pag_inverse.schedule import Schedule
from pag_inverse.settings import NonNegative, settings
from pag_inverse.solvers.base import Solver, State, StepOutput


@settings
class Toward(Solver):
    rate: NonNegative = 0.5

    def schedule(self, prior, steps):
        return Schedule.ddpm(prior.betas, steps)

    def step(self, state, i, problem, model, schedule, draw):
        eps = model(state.z, int(schedule.timesteps[i]))
        x0 = schedule.predict_x0(state.z, eps.unguided, i).clamp(-1, 1)
        x0 = x0 + self.rate * problem.operator.adjoint(problem.y - problem.operator.forward(x0))
        noise = draw(tuple(x0.shape)) if i > 0 else None
        z = schedule.ddpm_step(state.z, x0, i, 0.0, noise)
        return StepOutput(State(z), x0, problem.residual(x0))
'''


def module_of(path: Path, text: str) -> Any:
    path.write_text(text)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_new_operator_and_a_new_solver_are_one_file_and_one_line_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Registered, they are found by name from Python and from the command line."""
    from pag_inverse.cli.solve import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(OPERATORS, "columns", module_of(tmp_path / "columns.py", OPERATOR_FILE).Columns)
    monkeypatch.setitem(SOLVERS, "toward", module_of(tmp_path / "toward.py", SOLVER_FILE).Toward)
    task = tmp_path / "columns.yaml"
    task.write_text("operator: {name: columns, settings: {256: {}}}\nnoise: {name: gaussian, sigma: 0.05}\n"
                    "rows: {mine: {toward: {without_pag: {steps: 2, rate: 0.25}}}}\n")  # fmt: skip
    x = torch.rand(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0)) * 2 - 1
    output = restore(x, task=task, solver="toward", guidance=NoGuidance(), steps=3)
    assert output.x.shape == (*x.shape[:1], 1, *x.shape[1:]) and output.problem.y.shape == (1, 3, SIDE, SIDE // 2)
    args = ["--task", str(task), "--solver", "toward", "--dataset", "mine", "--pag", "0", "--size", "64"]
    assert main([*args, "--output", "out"]) == 0
    assert main([*args, "--output", "other", "--set", "rate=-1"]) == 2
    assert "rate is -1" in capsys.readouterr().err
    assert main(["--set", "help"]) == 0
    assert "options of toward:" in capsys.readouterr().out


def test_a_prior_on_another_device(pixel: PixelPrior, latent: LatentPrior) -> None:
    """`to` gives a prior on the device, and leaves the first one where it is."""
    for prior in (pixel, latent, load_prior("pixel")):
        assert prior.to("cpu") is prior
        moved = prior.to("meta")
        assert moved is not prior and moved.device.type == "meta" and prior.device.type == "cpu"
        assert {p.device.type for network in moved.networks() for p in network.parameters()} == {"meta"}


def test_a_restoration_that_does_not_agree_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    y = torch.zeros(1, 3, 64, 64)
    y[..., ::2] = 1.0  # stripes that no blurred image has
    restore(y, operator=GaussianBlur((3, 64, 64), 9, 3.0), sigma=0.02, steps=3)
    assert "picture 0: the residual is" in caplog.text and "look at the operator, sigma" in caplog.text
    caplog.clear()
    restore(torch.zeros(1, 3, 64, 64), operator=GaussianBlur((3, 64, 64), 9, 3.0), sigma=0.5, steps=10)
    assert not caplog.text
