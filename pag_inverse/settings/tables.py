"""What a run is set to: the frozen dataclasses that `pag_inverse.config` reads from YAML."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from pag_inverse.settings.reader import check_choice, check_interval, check_number, check_whole

FAMILIES = ("adm", "pixel", "latent", "stable_diffusion")
BETA_SCHEDULES = ("linear", "scaled_linear")
ENCODINGS = ("sample", "mode")
VARIANCES = ("fixed_small", "fixed_middle", "fixed_large")
PROJECTIONS = ("published", "adjoint")
SPACINGS = ("even", "quadratic", "quartic")
STEP_SCALINGS = ("constant", "sqrt_abar")
PREDICTIONS = ("epsilon", "v_prediction")  # diffusers' words for what a network predicts
PRECISIONS = ("float32", "bfloat16", "float16")
STEP_LIMITS = ("none", "noise")
PARTS = ("all", "early", "late")
TRAINING_STEPS = 1000


@dataclass(frozen=True)
class OperatorConfig:
    """An operator's name among `operators.OPERATORS` and its settings, sizes in pixels."""

    name: str
    settings: Mapping[str, object]


@dataclass(frozen=True)
class SolverOptions:
    """Where the published programs and the equations differ; the defaults are the tables' own.

    `spacing` of the visited timesteps: `even`, as published, or `quadratic` or `quartic`: close together where
    little noise is left.
    `step_scaling`: eta and gamma as they are (`constant`, as published), or times sqrt(abar) of the step.
    `noise_floor`: the data terms rest while the residual is at most so many sigma sqrt(m); 0, as published: never.
    `renoise_prediction`, `encode` and `ddim_eta` are PSLD's: fresh noise on A(D(z0)), the autoencoder's
    posterior sampled or its mean, the DDIM noise (0 to 1). `variance` is DPS's, for priors without a learned
    one: the posterior variance (fixed_small), beta (fixed_large), or their geometric mean (fixed_middle).

    Approximations, off by default. `step_limit`: where it is `noise`, no step along the data's gradient goes further
    than where, to first order, the residual is that of the noise. `gradient_interval` k: of the steps in
    `gradient_part` (`all`, the `early` half of the steps, which has most noise, or the `late` one) only each k-th
    follows the data, by k times as much. `encode_interval` k: only each k-th step has PSLD's gluing term, with k times
    gamma. `pag_interval`: the lowest and the highest t / 1000 at which PAG acts; elsewhere s is 0. A value not allowed
    is a ValueError.
    """

    renoise_prediction: bool = True
    encode: str = "sample"
    ddim_eta: float = 0.0
    variance: str = "fixed_small"
    spacing: str = "even"
    step_scaling: str = "constant"
    noise_floor: float = 0.0
    step_limit: str = "none"
    gradient_interval: int = 1
    gradient_part: str = "all"
    encode_interval: int = 1
    pag_interval: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        check_choice("spacing", self.spacing, SPACINGS)
        check_choice("step_scaling", self.step_scaling, STEP_SCALINGS)
        check_number("noise_floor", self.noise_floor)
        check_choice("encode", self.encode, ENCODINGS)
        check_number("ddim_eta", self.ddim_eta, maximum=1.0)
        check_choice("variance", self.variance, VARIANCES)
        check_choice("step_limit", self.step_limit, STEP_LIMITS)
        check_choice("gradient_part", self.gradient_part, PARTS)
        for name in ("gradient_interval", "encode_interval"):
            check_whole(name, getattr(self, name), minimum=1, maximum=TRAINING_STEPS)
        check_interval("pag_interval", self.pag_interval)


@dataclass(frozen=True)
class Hyperparameters:
    """One column of Table 5 or 7: step sizes `eta` and `gamma` (PSLD only), scale `s` at `layers`, `steps`.

    Without PAG `s` is 0 and `layers` is empty. A negative or non-finite number is a ValueError.
    """

    eta: float
    gamma: float | None = None
    s: float = 0.0
    layers: tuple[str, ...] = ()
    steps: int = TRAINING_STEPS
    options: SolverOptions = field(default_factory=SolverOptions)

    def __post_init__(self) -> None:
        check_number("eta", self.eta)
        check_number("s", self.s)
        check_whole("steps", self.steps, minimum=1, maximum=TRAINING_STEPS)
        if self.gamma is not None:
            check_number("gamma", self.gamma)

    def at_side(self, side: float, tuned: int = 256) -> Hyperparameters:
        """The row for pictures of another side than it was tuned for.

        The gradient of a norm keeps its length whatever the number of pixels n, while the distance a sample must go
        grows as sqrt(n): eta and gamma grow with the side.
        """
        scale = side / tuned
        return replace(self, eta=self.eta * scale, gamma=None if self.gamma is None else self.gamma * scale)


@dataclass(frozen=True)
class TaskConfig:
    """A degradation, its noise (`sigma` on the [-1, 1] range) and the row of the tables that goes with it.

    `hyperparameters` is None where no dataset was named: then the caller sets its own.
    """

    name: str
    dataset: str | None
    solver: str
    pag: bool
    operator: OperatorConfig
    noise: str
    sigma: float
    noise_in_hole: bool
    hyperparameters: Hyperparameters | None


@dataclass(frozen=True)
class BetaConfig:
    """The 1000 betas a prior was trained with: `linear`, or `scaled_linear` (linear in the square root)."""

    schedule: str
    start: float
    end: float


@dataclass(frozen=True)
class PriorConfig:
    """A prior: its kind, the dataset whose rows go with it, and its weights.

    `image_size` is in pixels, `size_mb` in megabytes. `files` are the names its weights go by: files, folders
    of Stable Diffusion's components, or folders inside `pag_inverse.priors` for the embedded ones, which no
    hub holds. `head_channels` is the width of an ADM's attention heads, which its weights do not tell.
    """

    name: str
    family: str
    image_size: int
    dataset: str | None
    files: tuple[str, ...]
    hub_repo: str | None
    hub_file: str | None
    size_mb: float
    betas: BetaConfig
    head_channels: int | None
    licence: str
    source: str
