"""The shipped settings equal the published tables, and a faulty file is one clear line."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import FrozenInstanceError, asdict, replace
from pathlib import Path

import numpy as np
import pytest

import operators
import pag_inverse.configs
from pag_inverse.problem import task_noise
from pag_inverse.settings import (
    PAPER_TASKS,
    PRIORS,
    TASKS,
    Hyperparameters,
    load_prior_config,
    load_task,
    recommended_solver,
)
from pag_inverse.solvers import DPS, PSLD, SOLVERS, make_solver

COLUMNS = ("box_inpainting", "super_resolution", "gaussian_deblur", "motion_deblur")
SD_LAYER = ("down_blocks.2.attentions.1.transformer_blocks.0.attn1",)

# Table 5 (PSLD + PAG), one row a dataset, one column a task.
PSLD_ETA = {"ffhq": (0.15, 0.7, 0.1, 0.15), "imagenet": (0.5, 0.7, 0.1, 0.3)}
PSLD_GAMMA = {"ffhq": (0.015, 0.07, 0.01, 0.015), "imagenet": (0.05, 0.07, 0.01, 0.03)}
PSLD_S = {"ffhq": (4.0, 4.0, 5.0, 4.0), "imagenet": (4.0, 4.0, 5.0, 5.0)}
# Table 7 (DPS).
DPS_ETA_WITHOUT = {"ffhq": (1.0, 1.0, 1.0, 1.0), "imagenet": (1.0, 1.0, 0.4, 0.6)}
DPS_ETA_WITH = {"ffhq": (1.0, 1.0, 1.0, 1.0), "imagenet": (1.0, 1.0, 0.4, 1.0)}
DPS_S = {"ffhq": (1.0, 1.0, 1.0, 1.0), "imagenet": (2.0, 2.0, 1.0, 2.0)}
DPS_LAYERS = {"ffhq": ("input_blocks.9.1",), "imagenet": ("middle_block.1", "output_blocks.2.1")}

OPERATORS_OF_THE_TABLES = {
    ("box_inpainting", 256): {"box": None, "margin": 16, "position": None},
    ("box_inpainting", 512): {"box": None, "margin": 16, "position": None},
    ("super_resolution", 256): {"scale": 8},
    ("super_resolution", 512): {"scale": 8},
    ("gaussian_deblur", 256): {"kernel_size": 61, "std": 3.0},
    ("gaussian_deblur", 512): {"kernel_size": 121, "std": 3.0},
    ("motion_deblur", 256): {"kernel_size": 61, "intensity": 0.5, "center": False},
    ("motion_deblur", 512): {"kernel_size": 121, "intensity": 0.5, "center": False},
}

GOOD = """
operator:
  name: gaussian_blur
  settings:
    256: {kernel_size: 61, std: 3.0, project: published}
    512: {kernel_size: 121, std: 3.0, project: published}
noise: {name: gaussian, sigma: 0.05}
rows:
  mine:
    psld:
      with_pag: {eta: 0.1, gamma: 0.01, s: 5.0, steps: 100, layers: [a.b], options: {encode: mode}}
    dps:
      without_pag: {eta: 1.0, steps: 1000, options: {variance: fixed_large}}
"""

BAD = [  # what is written, in place of what, and what the error names
    ("    512:", "    many:", "operator.settings.many.[key] is 'many'; it must be a valid integer"),
    ("name: gaussian,", "name: 7,", "noise.name is 7"),
    ("sigma: 0.05", "sigma: -0.05", "noise.sigma is -0.05; it must be greater than or equal to 0"),
    ("sigma: 0.05", "sigma: .nan", "noise.sigma is nan"),
    ("sigma: 0.05", "sigma: .inf", "noise.sigma is inf"),
    ("sigma: 0.05", "sigma: '0.05'", "noise.sigma is '0.05'; it must be a valid number"),
    ("sigma: 0.05", "sigma: 5e-2", "needs a point, as in 1.0e-4"),
    ("sigma: 0.05", f"sigma: 1{'0' * 400}", "noise.sigma is 1000"),
    ("sigma: 0.05", "sigma: ", "noise.sigma is None; it must be a valid number"),
    ("sigma: 0.05", "sigma: 0.05, in_hole: 1", "noise.in_hole is 1; it must be a valid boolean"),
    ("sigma: 0.05", "sigma: 0.05, sigma: 0.1", "line 7: key 'sigma' is given twice"),
    ("sigma: 0.05", "in_hole: true", "noise is {'in_hole': True, 'name': 'gaussian'}; it must have"),
    ("sigma: 0.05", "sigma: 0.05, peak: 100", "it must have a sigma, or for poisson noise a peak"),
    ("sigma: 0.05", "peak: 0.01", "noise.peak is 0.01; it must be greater than or equal to 0.1"),
    ("s: 5.0", "s: -5.0", "rows.mine.psld.with_pag: s is -5.0"),
    ("s: 5.0, ", "", "rows.mine.psld.with_pag.s is missing"),
    ("steps: 100,", "steps: 0,", "rows.mine.psld.with_pag: steps is 0; it must be greater than or equal to 1"),
    ("steps: 100,", "steps: 1001,", "rows.mine.psld.with_pag: steps is 1001"),
    ("steps: 100, ", "", "rows.mine.psld.with_pag.steps is missing"),
    ("layers: [a.b]", "layers: a.b", "rows.mine.psld.with_pag.layers is 'a.b', not a list of names"),
    ("layers: [a.b]", "layers: []", "rows.mine.psld.with_pag.layers is [], not a list of names"),
    ("layers: [a.b]", "layers: [7]", "layers.0 is 7; it must be a valid string"),
    ("layers: [a.b]", "layers: [a.b], pag_interval: 0.5", "pag_interval is 0.5"),
    ("layers: [a.b]", "layers: [a.b], pag_interval: [0.5, 0.2]", "the lower number must come first"),
    ("options: {encode: mode}", "options: [encode]", "options is ['encode'], not a mapping"),
    ("options: {encode: mode}", "options: {eta: 2.0}", "rows.mine.psld.with_pag.eta is given twice"),
    ("without_pag:", "no_pag:", "rows.mine.dps.no_pag is an unknown key"),
    ("  mine:", "  7:", "rows.7.[key] is 7; it must be a valid string"),
    ("rows:", "recommended: {mine: {pixel: ddrm}}\nrows:", "recommended.mine.pixel is 'ddrm'; its rows are of"),
    ("rows:", "recommended: {other: {pixel: dps}}\nrows:", "recommended.other.pixel is 'dps'; its rows are of none"),
    ("rows:", "recommended: {mine: {adm: dps}}\nrows:", "recommended.mine.adm.[key] is 'adm'; it must be 'pixel' or"),
    ("rows:", "recommended: dps\nrows:", "recommended is 'dps'; it must be a valid dictionary"),
    ("rows:", "columns:", "columns is an unknown key"),
    ("noise: {name: gaussian, sigma: 0.05}", "noise: gaussian", "noise is 'gaussian'; it must be a valid dictionary"),
    ("sigma: 0.05", "sigma: !!python/object/apply:os.getcwd []", "line 7: could not determine a constructor"),
    ("noise: {", "noise: {{", "line 8: expected"),
    ("sigma: 0.05", "sigma: 2024-99-99", "not YAML: month must be in 1..12"),
]
# What the file's own operator or solver does not take: told where the operator or solver is made.
BAD_OPERATORS = [
    ("std: 3.0", "stdd: 3.0", "stdd is an unknown key; allowed: kernel_size, std, project"),
    ("kernel_size: 61, std", "std", "kernel_size is missing"),
    ("kernel_size: 61", "kernel_size: 61.5", "kernel_size is 61.5"),
    ("kernel_size: 61", "kernel_size: true", "kernel_size is True"),
    ("project: published", "project: adjunct", "'published' or 'adjoint'"),
    ("name: gaussian_blur", "name: blur", "unknown operator 'blur'; there are box_inpainting"),
]
BAD_OPTIONS = [
    ("gamma: 0.01, ", "gamma: -1.0, ", "gamma is -1.0"),
    ("encode: mode", "encode: mean", "encode is 'mean'; it must be 'sample' or 'mode'"),
    ("encode: mode", "encode_interval: 0", "encode_interval is 0"),
    ("encode: mode", "encode_interval: 1.5", "encode_interval is 1.5; it must be a valid integer"),
    ("encode: mode", "variance: fixed_small", "variance is an unknown key; allowed: eta, spacing, step_scaling"),
    ("encode: mode", "step_limit: 1", "step_limit is 1; it must be 'none' or 'noise'"),
    ("encode: mode", "ddim_eta: 1.5", "ddim_eta is 1.5"),
    ("encode: mode", "spacing: log", "spacing is 'log'"),
    ("encode: mode", "step_scaling: abar", "step_scaling is 'abar'"),
    ("encode: mode", "noise_floor: -1.0", "noise_floor is -1.0"),
]


def column(table: dict[str, tuple[float, ...]], dataset: str, task: str) -> float:
    return table[dataset][COLUMNS.index(task)]


def write(folder: Path, text: str) -> Path:
    path = folder / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_names():
    assert sorted(COLUMNS) == list(PAPER_TASKS) and set(PAPER_TASKS) < set(TASKS)
    assert PRIORS == ("ffhq", "imagenet", "imagenet_conditional", "latent", "pixel", "sd15")


@pytest.mark.parametrize("task", COLUMNS)
@pytest.mark.parametrize("dataset", ["ffhq", "imagenet"])
def test_every_row_of_table_5(task, dataset):
    with_pag = load_task(task, dataset, "psld", image_size=512, pag=True).hyperparameters
    assert (with_pag.s, with_pag.layers, with_pag.steps) == (column(PSLD_S, dataset, task), SD_LAYER, 1000)
    eta, gamma = column(PSLD_ETA, dataset, task), column(PSLD_GAMMA, dataset, task)
    published = PSLD(eta, gamma=gamma, renoise_prediction=True, encode="sample", ddim_eta=0.0)
    assert make_solver("psld", with_pag) == published and with_pag.tuned_side is None
    without = load_task(task, dataset, "psld", image_size=512, pag=False).hyperparameters
    assert (without.s, without.layers, without.steps) == (0.0, (), 1000)
    assert make_solver("psld", without) == PSLD(1.0, gamma=0.1)


@pytest.mark.parametrize("task", COLUMNS)
@pytest.mark.parametrize("dataset", ["ffhq", "imagenet"])
def test_every_row_of_table_7(task, dataset):
    with_pag = load_task(task, dataset, "dps", image_size=256, pag=True).hyperparameters
    assert (with_pag.s, with_pag.layers) == (column(DPS_S, dataset, task), DPS_LAYERS[dataset])
    assert make_solver("dps", with_pag) == DPS(column(DPS_ETA_WITH, dataset, task)) and with_pag.steps == 1000
    without = load_task(task, dataset, "dps", image_size=256, pag=False).hyperparameters
    assert make_solver("dps", without) == DPS(column(DPS_ETA_WITHOUT, dataset, task))
    assert (without.s, without.layers, without.steps) == (0.0, (), 1000)


@pytest.mark.parametrize("task", COLUMNS)
@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("pag", [True, False])
def test_the_rows_of_the_embedded_priors(task, solver, pag):
    row = load_task(task, "natural", solver, image_size=256, pag=pag).hyperparameters
    assert row is not None and bool(row.layers) == (row.s > 0) == pag
    made = make_solver(solver, row)
    assert bool(made.STEP_SIZES) == (row.tuned_side == 256)


# Sections and tables of the papers, beside DPS and PSLD: steps and options.
PAPERS = {
    "pigdm": (100, {"ddim_eta": 1.0, "weight": 1.0, "jacobian": True}),
    "mmps": (100, {"iterations": 3}),
    "ddnm": (100, {"eta": 0.85}),
    "daps": (200, {"ode_steps": 5, "langevin_steps": 100, "tau": 0.01, "sigma_max": 100.0, "lr_ratio": 0.01}),
    "reddiff": (100, {"weight": 0.25}),
    "ldps": (1000, {"eta": 1.0}),
    "latent_daps": (50, {"ode_steps": 2, "langevin_steps": 100, "sigma_max": 10.0}),
}
DIFFPIR = {"ffhq": ((1.0, 1.0), (15.0, 0.25), (7.0, 0.3), (7.0, 0.3))}  # lambda and zeta, in the order of COLUMNS
DIFFPIR["imagenet"] = (DIFFPIR["ffhq"][0], (35.0, 0.35), *DIFFPIR["ffhq"][2:])


@pytest.mark.parametrize("dataset", ["ffhq", "imagenet"])
@pytest.mark.parametrize("pag", [True, False])
@pytest.mark.parametrize("column, task", list(enumerate(COLUMNS)))
def test_further_solvers_have_the_settings_of_their_papers(column, task, dataset, pag):
    weight, zeta = DIFFPIR[dataset][column]
    lr = 1e-4 if task in ("super_resolution", "gaussian_deblur") else 5e-5
    papers = PAPERS | {"diffpir": (100, {"weight": weight, "zeta": zeta, "spacing": "quadratic"})}
    for solver, (steps, options) in papers.items():
        row = load_task(task, dataset, solver, image_size=256, pag=pag).hyperparameters
        found = make_solver(solver, row)
        expected = options | ({"lr": lr} if solver.endswith("daps") else {})
        assert row.steps == steps and {key: found.options()[key] for key in expected} == expected
        like = "psld" if found.default_prior == "latent" else "dps"
        paper = load_task(task, dataset, like, image_size=256, pag=pag).hyperparameters
        assert (row.s, row.layers) == (paper.s, paper.layers)


@pytest.mark.parametrize("task", COLUMNS)
@pytest.mark.parametrize("pag", [True, False])
def test_the_recommended_solvers_have_rows_of_the_embedded_priors(task, pag):
    found = {kind: recommended_solver(task, kind, "natural", pag=pag) for kind in ("pixel", "latent")}
    assert found == {"pixel": "diffpir", "latent": "psld"}
    for kind, solver in found.items():
        row = load_task(task, "natural", solver, image_size=256, pag=pag).hyperparameters
        assert row is not None and bool(row.layers) == (row.s > 0) == pag
        assert make_solver(solver, row).default_prior == kind
    assert recommended_solver(task, "pixel", "ffhq", pag=pag) is None  # the paper's solvers
    assert recommended_solver(task, "pixel", None, pag=pag) is None


def test_a_recommendation_counts_where_the_row_is_there(tmp_path):
    mine = write(tmp_path, GOOD + "recommended: {mine: {pixel: dps}}\n")
    assert recommended_solver(mine, "pixel", "mine", pag=False) == "dps"
    assert recommended_solver(mine, "pixel", "mine", pag=True) is None  # dps has no row with PAG there
    assert recommended_solver(mine, "latent", "mine", pag=True) is None


@pytest.mark.parametrize("task", COLUMNS)
@pytest.mark.parametrize("image_size, operator_size", [(64, 256), (256, 256), (383, 256), (384, 512)])
def test_the_operators_of_the_tables(task, image_size, operator_size):
    loaded = load_task(task, None, "dps", image_size=image_size, pag=False)
    expected = OPERATORS_OF_THE_TABLES[task, operator_size]
    assert loaded.operator.settings == {**expected, "project": "published"}
    assert (loaded.noise, loaded.sigma, loaded.noise_in_hole) == ("gaussian", 0.05, True)
    assert loaded.hyperparameters is None


def test_the_embedded_rows_keep_the_256_pixel_operators():
    loaded = load_task("gaussian_deblur", "natural", "psld", image_size=512, pag=True)
    assert loaded.operator.settings["kernel_size"] == 61


@pytest.mark.parametrize("task", COLUMNS)
@pytest.mark.parametrize("image_size", [256, 512])
def test_operators_accept_the_shipped_settings(task, image_size):
    operator = load_task(task, None, "dps", image_size=image_size, pag=False).operator
    made = operators.make_operator(
        operator.name, (3, image_size, image_size), operator.settings, [np.random.default_rng(0)]
    )
    assert tuple(made.in_shape) == (3, image_size, image_size)


@pytest.mark.parametrize("task", COLUMNS)
def test_the_noise_of_the_shipped_tasks_exists(task):
    loaded = load_task(task, None, "dps", image_size=256, pag=False)
    assert operators.make_noise(loaded.noise, loaded.sigma).sigma == 0.05


def test_the_sentence_beside_the_layer_row():
    for task in COLUMNS:
        text = Path(pag_inverse.configs.__file__).parent.joinpath("tasks", f"{task}.yaml")
        words = " ".join(text.read_text(encoding="utf-8").replace("#", " ").split())
        assert "input_blocks.9 is a downsampling block without attention" in words


@pytest.mark.parametrize(
    "name, family, image_size, dataset, hub, size_mb, betas, head_channels",
    [
        ("ffhq", "adm", 256, "ffhq", ("deepinv/diffunet", "diffusion_ffhq_10m.pt"), 357, "linear", 64),
        ("imagenet", "adm", 256, "imagenet", ("deepinv/diffunet", "diffusion_openai.pt"), 2100, "linear", 64),
        ("imagenet_conditional", "adm", 256, "imagenet", (None, None), 2100, "linear", 64),
        ("sd15", "stable_diffusion", 512, None, ("stable-diffusion-v1-5/stable-diffusion-v1-5", None), 4270,
         "scaled_linear", None),
    ],
)  # fmt: skip
def test_the_published_priors(name, family, image_size, dataset, hub, size_mb, betas, head_channels):
    prior = load_prior_config(name)
    assert (prior.name, prior.family, prior.image_size, prior.dataset) == (name, family, image_size, dataset)
    assert (prior.hub_repo, prior.hub_file) == hub
    assert (prior.size_mb, prior.head_channels) == (size_mb, head_channels)
    ends = {"linear": (0.0001, 0.02), "scaled_linear": (0.00085, 0.012)}[betas]
    assert (prior.betas.schedule, prior.betas.start, prior.betas.end) == (betas, *ends)
    assert prior.hub_file is None or prior.hub_file in prior.files
    assert prior.licence and prior.source


@pytest.mark.parametrize("name", ["pixel", "latent"])
def test_the_embedded_priors_have_no_hub(name):
    prior = load_prior_config(name)
    assert (prior.family, prior.dataset, prior.hub_repo, prior.hub_file) == (name, "natural", None, None)


def test_a_file_of_ones_own(tmp_path):
    path = write(tmp_path, GOOD)
    loaded = load_task(path, "mine", "psld", image_size=256, pag=True)
    assert loaded.name == "mine" and loaded.hyperparameters.layers == ("a.b",)
    assert loaded.hyperparameters.options == {"eta": 0.1, "gamma": 0.01, "encode": "mode"}
    dps = load_task(str(path), "mine", "dps", image_size=256, pag=False)
    assert make_solver("dps", dps.hyperparameters) == DPS(1.0, variance="fixed_large")
    with pytest.raises(ValueError, match=r"rows.mine has no row dps.with_pag; there are psld.with_pag, dps"):
        load_task(path, "mine", "dps", image_size=256, pag=True)
    with pytest.raises(ValueError, match=r"unknown dataset 'ffhq'; the rows of .* are for mine"):
        load_task(path, "ffhq", "dps", image_size=256, pag=True)


@pytest.mark.parametrize("old, new, named", BAD)
def test_a_fault_is_one_line_that_names_file_and_key(tmp_path, old, new, named):
    assert old in GOOD
    path = write(tmp_path, GOOD.replace(old, new, 1))
    with pytest.raises(ValueError) as error:
        load_task(path, None, "dps", image_size=256, pag=False)
    message = str(error.value)
    assert message.startswith(f"{path}: ") and named in message and "\n" not in message


@pytest.mark.parametrize("old, new, named", BAD_OPERATORS)
def test_a_fault_of_an_operator_is_one_line(tmp_path, old, new, named):
    assert old in GOOD
    operator = load_task(write(tmp_path, GOOD.replace(old, new, 1)), None, "dps", image_size=256, pag=False).operator
    with pytest.raises(ValueError) as error:
        operators.check_settings(operator.name, operator.settings, "mine.yaml: operator.settings")
    message = str(error.value)
    assert message.startswith("mine.yaml: operator.settings") and named in message and "\n" not in message


@pytest.mark.parametrize("old, new, named", BAD_OPTIONS)
def test_a_fault_of_a_solvers_options_is_one_line(tmp_path, old, new, named):
    assert old in GOOD
    path = write(tmp_path, GOOD.replace(old, new, 1))
    row = load_task(path, "mine", "psld", image_size=256, pag=True).hyperparameters
    with pytest.raises(ValueError) as error:
        make_solver("psld", row, "mine.yaml")
    message = str(error.value)
    assert message.startswith("mine.yaml: ") and named in message and "\n" not in message


@pytest.mark.parametrize("sizes", ["{64: {kernel_size: 5, std: 1.0}}", "{512: {kernel_size: 5, std: 1.0}}"])
def test_one_size_of_an_operator_is_enough(tmp_path, sizes):
    text = GOOD.replace(GOOD[GOOD.index("  settings:") : GOOD.index("noise:")], f"  settings: {sizes}\n")
    for side in (64, 512):
        assert load_task(write(tmp_path, text), None, "dps", image_size=side, pag=False).operator.settings["std"] == 1.0


@pytest.mark.parametrize("text", ["", "just words", "- a\n- list\n", "[" * 5000, "a: b: c", "\tx: 1"])
def test_what_is_no_mapping(tmp_path, text):
    with pytest.raises(ValueError) as error:
        load_prior_config(write(tmp_path, text))
    assert str(error.value).startswith(str(tmp_path)) and "\n" not in str(error.value)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(ValueError, match=r"none.yaml: no such file"):
        load_task(tmp_path / "none.yaml", None, "dps", image_size=256, pag=False)
    tmp_path.joinpath("folder.yaml").mkdir()
    with pytest.raises(ValueError, match=r"folder.yaml: it is a folder"):
        load_prior_config(tmp_path / "folder.yaml")
    tmp_path.joinpath("binary.yaml").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(ValueError, match=r"binary.yaml: not a text in UTF-8"):
        load_prior_config(tmp_path / "binary.yaml")


def test_unknown_names_list_what_exists():
    with pytest.raises(ValueError, match="unknown task 'zoom'; there are box_inpainting, colorize, deblur, "):
        load_task("zoom", None, "dps", image_size=256, pag=False)
    with pytest.raises(ValueError, match=r"rows.ffhq has no row ddrm.with_pag; there are dps.with_pag, dps.w"):
        load_task("motion_deblur", "ffhq", "ddrm", image_size=256, pag=True)
    with pytest.raises(ValueError, match=r"unknown dataset 'celeba'; the rows of motion_deblur.yaml are for"):
        load_task("motion_deblur", "celeba", "dps", image_size=256, pag=False)
    with pytest.raises(ValueError, match="unknown prior 'sdxl'; there are ffhq, imagenet, imagenet_conditional,"):
        load_prior_config("sdxl")
    with pytest.raises(ValueError, match="image_size is 0"):
        load_task("motion_deblur", None, "dps", image_size=0, pag=False)


@pytest.mark.parametrize("change", [{"s": float("inf")}, {"steps": 0}, {"pag_interval": (0.7, 0.2)}, {"s": "1"}])
def test_an_override_is_checked_too(change):
    with pytest.raises(ValueError, match=f"^{next(iter(change))} is "):
        replace(Hyperparameters(), **change)


def test_settings_are_frozen_and_become_plain_dictionaries():
    loaded = load_task("motion_deblur", "ffhq", "psld", image_size=512, pag=True)
    with pytest.raises(FrozenInstanceError):
        loaded.sigma = 0.1
    assert asdict(loaded)["hyperparameters"]["options"]["eta"] == 0.15


def test_reading_settings_imports_nothing_heavy():
    code = "import sys; from pag_inverse import settings; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_poisson_noise_has_a_peak(tmp_path):
    text = GOOD.replace("{name: gaussian, sigma: 0.05}", "{name: poisson, peak: 100}")
    loaded = load_task(write(tmp_path, text), None, "dps", image_size=256, pag=False)
    assert (loaded.noise, loaded.peak, loaded.sigma) == ("poisson", 100.0, 0.0)
    noise = task_noise(loaded)
    assert isinstance(noise, operators.PoissonNoise) and noise.peak == 100.0
    assert task_noise(loaded, peak=20.0).peak == 20.0
    with pytest.raises(ValueError, match=r"sigma is 0\.1, but the noise is poisson: give a peak"):
        task_noise(loaded, 0.1)
    gaussian = load_task(write(tmp_path, GOOD), None, "dps", image_size=256, pag=False)
    assert gaussian.peak is None and task_noise(gaussian).sigma == 0.05 and task_noise(gaussian, 0.2).sigma == 0.2
    assert isinstance(task_noise(gaussian, 0.0), operators.NoNoise)
    with pytest.raises(ValueError, match=r"peak is 20\.0; it is of poisson noise alone"):
        task_noise(gaussian, peak=20.0)
