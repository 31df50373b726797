"""What `sample` makes: its rows, one for each run, and the prompts; checked without a network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from operators.validation import Interval, Unit, Wholes
from pag_inverse.guidance import make_combination, make_perturbation
from pag_inverse.priors.checkpoints.picture_side import prior_kind
from pag_inverse.settings import PRIORS, Kind, Names, NonNegative, settings, validated
from pag_inverse.settings.files import check_file, read_text
from pag_inverse.settings.reader import FileModel, open_settings, read_model, shipped_names
from pag_inverse.settings.request import Device, Formats, Steps
from pag_inverse.storage.places import check_writable

FOLDER, DEFAULTS = "generation", "defaults"  # of configs, and the file in it with the rows of the priors
SUITES = tuple(name for name in shipped_names(FOLDER) if name != DEFAULTS)
DEFAULT_PRIOR = "pixel"
# The row of a prior that has none, by its kind.
UNKNOWN: Mapping[str, Mapping[str, Any]] = {
    "pixel": {"sampler": "ddpm", "steps": 250},
    "latent": {"sampler": "ddim", "steps": 50},
}
# What a row without a suite takes from the request, by the row's names: the request's names, and the flags.
OWN = {
    "s": ("pag", "pag"),
    "layers": ("layers", "layers"),
    "perturbation": ("perturbation", "perturbation"),
    "combination": ("combination", "combination"),
    "pag_interval": ("pag_interval", "pag-interval"),
    "adaptive_scale": ("adaptive_scale", "adaptive-scale"),
    "cfg": ("cfg", "cfg"),
    "unconditional_prior": ("unconditional_prior", "uncond-prior"),
}
SamplerName = Literal["ddpm", "ddim"]
Side = Annotated[int, Field(ge=1, le=2**16)]


@settings
class SampleRow:
    """How pictures are sampled: a row of a table.

    s and layers: of PAG (Eq. 10). perturbation and combination: spelled as `make_perturbation` and `make_combination`
    read them. pag_interval: the lowest and highest t / 1000 at which PAG acts. adaptive_scale: a of PAG's scale s(t) =
    max(0, s - a (1000 - t)). cfg: classifier-free guidance, 1 is off (Eq. 14 with w = cfg - 1). A row with `prompts`
    takes those of the request. unconditional_prior: a network of its own for the eps without a condition (Fig. 41).
    eta: of DDIM. size: side in pixels, None for the prior's.
    """

    prior: str
    sampler: SamplerName
    steps: Steps
    s: NonNegative = 0.0
    layers: Names = ()
    perturbation: str = "identity"
    combination: str = "plain"
    pag_interval: Interval = (0.0, 1.0)
    adaptive_scale: NonNegative = 0.0
    cfg: NonNegative = 1.0
    unconditional_prior: str | None = None
    eta: Unit = 0.0
    prompts: bool = False
    size: Side | None = None


@settings
class SampleRequest:
    """Everything that `sample` is set to; None is the row's own, or the prior's.

    The runs are the rows of `suite`, which `rows` narrows, or a single one. `count` pictures are made in each, of each
    prompt where there are several. `batch_size` None is as many as fit.
    """

    suite: str | None = None
    rows: Names | None = None
    prior: str | None = None
    sampler: SamplerName | None = None
    steps: Steps | None = None
    eta: Unit | None = None
    pag: NonNegative | None = None
    layers: Names | None = None
    perturbation: str | None = None
    combination: str | None = None
    pag_interval: Interval | None = None
    adaptive_scale: NonNegative | None = None
    cfg: NonNegative | None = None
    unconditional_prior: str | None = None
    prompt: str | None = None
    prompts: Path | None = None
    classes: Wholes | None = None
    count: Annotated[int, Field(ge=1, le=10**7)] = 16
    size: Side | None = None
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    batch_size: Annotated[int, Field(ge=1, le=2**16)] | None = 8
    device: Device = "cpu"
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    weights_dir: Path | None = None
    prior_config: Path | None = None
    prediction: Literal["epsilon", "v_prediction"] | None = None
    download: bool = False
    reference: Path | None = None
    npz: bool = False
    explain: Formats = ()
    output: Path | None = None
    overwrite: bool = False
    log_json: bool = False


class _SuiteFile(FileModel):
    rows: Annotated[dict[str, dict[str, Any]], Field(min_length=1)]
    paper: dict[str, float] = Field(default_factory=dict)


@dataclass(frozen=True)
class Suite:
    """The rows of a table by name, and the FID that the paper has for them."""

    rows: Mapping[str, SampleRow]
    paper: Mapping[str, float]


@dataclass(frozen=True)
class SamplePlan:
    """The rows by the name of their run, the prompts, the published FID by run, and where everything goes.

    `folders` says whether each run has a folder of its own in `output`; a single run without a suite is `output`.
    """

    rows: Mapping[str, SampleRow]
    prompts: tuple[str, ...]
    paper: Mapping[str, float]
    output: Path
    folders: bool


def load_suite(name: str) -> Suite:
    """One of SUITES, or of a YAML file written like theirs; ValueError for an unknown name and a faulty file."""
    return _read_suite("suite", name, SUITES)


def _read_suite(kind: str, name: str, known: tuple[str, ...]) -> Suite:
    _, source, values = open_settings(kind, name, known, FOLDER)
    file = read_model(_SuiteFile, values, source)
    rows = {row: validated(SampleRow, given, f"{source}: rows.{row}") for row, given in file.rows.items()}
    for row in rows:
        if not row.replace("_", "").replace("-", "").isalnum():
            raise ValueError(f"{source}: the row {row!r} names a folder; it must have letters, digits, _ and - alone")
    if unknown := sorted(set(file.paper) - set(rows)):
        raise ValueError(f"{source}: paper.{unknown[0]} is no row of it")
    return Suite(rows, file.paper)


def default_row(prior: str, prompted: bool, kind: Kind | None = None) -> SampleRow:
    """The row of a prior, with a prompt or without; for one that has none, that of its kind, without guidance."""
    rows = _read_suite("file", DEFAULTS, (DEFAULTS,)).rows
    found = rows.get(f"{prior}_prompt" if prompted else prior, rows.get(prior))
    return found or validated(SampleRow, {"prior": prior, **UNKNOWN[kind or prior_kind(prior)], "prompts": prompted})


def make_plan(request: SampleRequest) -> SamplePlan:
    """Check everything that can be checked without a network; ValueError says what is wrong."""
    for wrong, message in _contradictions(request):
        if wrong:
            raise ValueError(message)
    prompts = _prompts(request)
    suite = load_suite(request.suite) if request.suite else None
    rows = _suite_rows(request, suite) if suite else {"sample": _single_row(request, bool(prompts))}
    rows = {name: _checked(name, _with_flags(request, row), bool(prompts)) for name, row in rows.items()}
    for path in (request.prior_config, request.reference):
        if path is not None and not path.is_dir():
            check_file(path)
    name = Path(request.suite).stem if request.suite else f"sample_{Path(rows['sample'].prior).stem}"
    output = request.output or Path("results") / name
    check_writable(output)
    return SamplePlan(rows, prompts, suite.paper if suite else {}, output, suite is not None)


def _contradictions(request: SampleRequest) -> Iterator[tuple[bool, str]]:
    """Flags that contradict each other or would do nothing, each with what is said of it."""
    for name, flag in (("prior", "prior"), *OWN.values()):
        given = getattr(request, name) is not None
        yield request.suite is not None and given, f"--{flag} does nothing with --suite, whose rows have it"
    for name, flag in (OWN[own] for own in OWN if own not in ("s", "cfg", "unconditional_prior")):
        given = getattr(request, name) is not None
        yield request.pag == 0 and given, f"--{flag} does nothing with --pag 0; leave one of them out"
    yield request.rows is not None and request.suite is None, "--rows goes with --suite"
    yield request.prompt is not None and request.prompts is not None, "--prompt and --prompts: give one of them"
    yield (
        request.precision == "float16" and request.device == "cpu",
        "--precision float16 is too slow on a processor; there is bfloat16",
    )


def _prompts(request: SampleRequest) -> tuple[str, ...]:
    """The prompt, or those of the file, one a line; empty without either."""
    if request.prompt is not None:
        return (request.prompt,)
    if request.prompts is None:
        return ()
    lines = [line.strip() for line in read_text(request.prompts).splitlines()]
    found = tuple(line for line in lines if line)
    if not found:
        raise ValueError(f"{request.prompts}: no prompts in it; it has one a line")
    return found


def _suite_rows(request: SampleRequest, suite: Suite) -> Mapping[str, SampleRow]:
    if request.rows is None:
        return suite.rows
    for name in request.rows:
        if name not in suite.rows:
            raise ValueError(f"--rows {name}: suite {request.suite} has the rows {', '.join(suite.rows)}")
    return {name: suite.rows[name] for name in request.rows}


def _single_row(request: SampleRequest, prompted: bool) -> SampleRow:
    prior = request.prior or DEFAULT_PRIOR
    if prior not in PRIORS and not Path(prior).exists():
        raise ValueError(f"unknown prior {prior!r}; there are {', '.join(PRIORS)}, or the path of a checkpoint")
    row = replace(default_row(prior, prompted), prompts=prompted)
    if request.pag == 0:
        row = replace(row, layers=())
    values = {own: getattr(request, name) for own, (name, _) in OWN.items()}
    return replace(row, **{name: value for name, value in values.items() if value is not None})


def _with_flags(request: SampleRequest, row: SampleRow) -> SampleRow:
    """The row with the flags that replace any row's."""
    values = {name: getattr(request, name) for name in ("sampler", "steps", "size", "eta")}
    return replace(row, **{name: value for name, value in values.items() if value is not None})


def _checked(name: str, row: SampleRow, prompted: bool) -> SampleRow:
    """The row; ValueError where it cannot be run, or would not do what it says."""
    make_perturbation(row.perturbation), make_combination(row.combination)
    if row.s > 0 and not row.layers:
        raise ValueError(
            f"--pag {row.s:g} needs --layers for prior {row.prior}; solve --list-layers --prior {row.prior} prints them"
        )
    if row.prompts and not prompted:
        raise ValueError(f"row {name} is of prompts; give --prompt or --prompts, or other --rows")
    if row.unconditional_prior is not None and row.cfg == 1:
        raise ValueError("--uncond-prior does nothing without --cfg, which weighs its prediction")
    if row.cfg != 1 and not row.prompts and row.unconditional_prior is None:
        raise ValueError(f"--cfg {row.cfg:g} does nothing without --prompt, --prompts or --uncond-prior")
    if row.eta > 0 and row.sampler != "ddim":
        raise ValueError(f"--eta {row.eta:g} is of ddim; {row.sampler} has noise of its own")
    return row
