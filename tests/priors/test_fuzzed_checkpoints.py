"""Checkpoints that are anything: `load_prior` returns a prior or says in one line what is wrong, soon and in memory.

Each case changes a valid tiny checkpoint at random, by its seed: its structure, its values, its bytes.
"""

from __future__ import annotations

import json
import logging
import math
import random
import resource
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel, UNet2DModel
from safetensors.torch import save_file
from torch import Tensor

from pag_inverse import Prior, load_prior
from pag_inverse.priors.checkpoints.picture_side import picture_side

LONGEST, MOST = 10.0, 2**31  # seconds a case, bytes of the whole file
ODD: list[Any] = [
    None, True, False, "", "nan", "text", "x" * 5000, "line\nbreak", 0, -1, 1, 2, 3, 7, 1000, 10**6, 10**9, 2**63,
    10**400, 0.0, -0.5, 1e-300, 1e308, math.nan, math.inf, -math.inf, [], [[]], {}, [1], [0], ["x"], [None], [1, 2, 3],
    [[1], [2]], [1e9] * 3, ["DownBlock2D"] * 40, {"a": 1},
]  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def bounded_memory() -> Iterator[None]:
    logging.getLogger("pag_inverse").setLevel(logging.ERROR)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    logging.getLogger("pag_inverse").setLevel(logging.NOTSET)
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < MOST


def fault(load: Callable[[], object]) -> str | None:
    """What is wrong with how a case ended."""
    start = time.process_time()
    try:
        loaded = load()
        found = None if isinstance(loaded, Prior) else f"returned {loaded!r}"
    except ValueError as error:
        found = None if str(error) and "\n" not in str(error) and len(str(error)) < 1000 else f"message {error!r}"
    except Exception as error:
        found = repr(error)
    took = time.process_time() - start
    return found or (f"took {took:.0f} s" if took > LONGEST else None)


def check(cases: Callable[[random.Random], Callable[[], object]], count: int) -> None:
    """Run `count` cases, and list those that failed by their seeds."""
    faults = {seed: found for seed in range(count) if (found := fault(cases(random.Random(seed))))}
    assert not faults


def odd_tensor(rng: random.Random, like: Tensor) -> Tensor:
    """A tensor that is no weight in the place of one."""
    makers: list[Callable[[], Tensor]] = [
        lambda: torch.tensor(1.0),
        lambda: torch.zeros(1, 1, 1, 1, 1),
        lambda: torch.zeros(0, *like.shape[1:]),
        lambda: like.flatten(),
        lambda: like[..., None],
        lambda: like.transpose(0, -1),
        lambda: torch.zeros(1).expand(2**14, 2**14),
        lambda: like.double() * 1e300,
        lambda: torch.full_like(like, rng.choice([math.nan, math.inf, -math.inf])),
        lambda: torch.cat([like, like]),
        *[lambda d=d: like.to(d) for d in (torch.int64, torch.bool, torch.uint8, torch.half, torch.bfloat16)],
        lambda: like.to(torch.complex64),
        lambda: like.to(torch.float8_e4m3fn),
    ]
    return rng.choice(makers)()


def only_in_torch_files(rng: random.Random, like: Tensor) -> Any:
    """What safetensors cannot hold."""
    return rng.choice([
        lambda: like.to_sparse(),
        lambda: torch.empty(10**12, 10**3, device="meta"),
        lambda: torch.quantize_per_tensor(like, 0.1, 0, torch.qint8),
        lambda: torch.nn.Parameter(like),
        lambda: like.expand(2, *like.shape),
        lambda: rng.choice(ODD),
        lambda: {"a.b": like},
    ])()  # fmt: skip


def odd_key(rng: random.Random, key: str) -> str:
    return rng.choice([
        "", ".", "x", "a" * 4000, "a.\n.b", key + ".", "." + key, key.replace("0", "9" * 50), key.replace("1", "70"),
        key.replace("weight", "bias"), "ema." + key, "module." + key, key.upper(), key.replace(".", ".."),
        "input_blocks.999.0.in_layers.0.weight", "output_blocks.40.0.conv.weight", "label_emb.weight",
    ])  # fmt: skip


def changed_state(rng: random.Random, state: dict[str, Tensor]) -> dict[Any, Any]:
    state = dict(state)
    for _ in range(rng.randint(1, 3)):
        key = rng.choice(sorted(state))
        kind = rng.randrange(5)
        if kind == 0:
            del state[key]
        elif kind == 1:
            state[odd_key(rng, key)] = state.pop(key)
        elif kind == 2:
            state[odd_key(rng, key)] = torch.randn(rng.choice([(), (1,), (32, 32), (3, 3, 3, 3)]))
        else:
            state[key] = odd_tensor(rng, state[key])
    return state


def changed_bytes(rng: random.Random, file: Path) -> None:
    content = bytearray(file.read_bytes())
    kind = rng.randrange(4)
    if kind == 0:
        content = content[: rng.choice([0, 1, 7, 8, 9, len(content) // 2, len(content) - 1])]
    elif kind == 1:
        content = content + bytes(rng.choice([1, 100]))
    else:  # most of what is not a weight stands at the beginning and at the end
        for _ in range(rng.choice([1, 5, 50])):
            near = rng.randrange(min(2000, len(content)))
            content[near if rng.random() < 0.5 else -1 - near] = rng.randrange(256)
    file.write_bytes(content)


def changed_settings(rng: random.Random, settings: dict[str, Any]) -> dict[str, Any]:
    settings = dict(settings)
    for _ in range(rng.randint(1, 2)):
        key = rng.choice([key for key in sorted(settings) if not key.startswith("_diffusers")])
        kind = rng.randrange(6)
        if kind == 0:
            del settings[key]
        elif kind == 1:
            settings[rng.choice(["", "x", "_x", key.upper(), "x" * 3000, "new\nline"])] = rng.choice(ODD)
        elif kind == 2 and isinstance(settings[key], (list, tuple)):
            settings[key] = rng.choice([list(settings[key])[1:], [*settings[key]] * 2, [rng.choice(ODD)] * 2])
        else:
            settings[key] = rng.choice(ODD)
    return settings


def write_json(file: Path, settings: dict[str, Any]) -> None:
    file.write_text(json.dumps(settings))


# The valid checkpoints.


def unet() -> UNet2DModel:
    torch.manual_seed(0)
    return UNet2DModel(
        sample_size=8,
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=4,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=8,
    )


@pytest.fixture(scope="module")
def adm_file(adm_checkpoint: Path) -> Path:
    return adm_checkpoint


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pixels."""
    folder = tmp_path_factory.mktemp("pixels")
    unet().save_pretrained(folder / "unet")
    DDIMScheduler().save_pretrained(folder / "scheduler")
    return folder


@pytest.fixture(scope="module")
def prompted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stable Diffusion's parts."""
    from transformers import CLIPTextConfig, CLIPTextModel

    folder = tmp_path_factory.mktemp("prompted")
    torch.manual_seed(0)
    UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        attention_head_dim=4,
        cross_attention_dim=16,
    ).save_pretrained(folder / "unet")
    AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=4,
        latent_channels=4,
    ).save_pretrained(folder / "vae")
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1}
    CLIPTextModel(CLIPTextConfig(**sizes)).save_pretrained(folder / "text_encoder")
    DDIMScheduler().save_pretrained(folder / "scheduler")
    return folder


def copied(folder: Path, to: Path) -> Path:
    shutil.rmtree(to, ignore_errors=True)
    shutil.copytree(folder, to)
    return to


# The cases.


def test_the_checkpoints_are_valid(adm_file: Path, folder: Path, prompted: Path) -> None:
    for source, config in ((adm_file, adm_file.parent / "config.json"), (folder, None), (prompted, None)):
        assert isinstance(load_prior(source, config=config), Prior)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_state_dicts(suffix: str, adm_file: Path, tmp_path: Path) -> None:
    state = torch.load(adm_file, weights_only=True)
    config, file = adm_file.parent / "config.json", tmp_path / f"changed{suffix}"

    def case(rng: random.Random) -> Callable[[], object]:
        changed = changed_state(rng, state)
        if suffix == ".safetensors":
            save_file({k: v.contiguous() if v.numel() < 2**20 else v[:1].clone() for k, v in changed.items()}, file)
        else:
            if rng.random() < 0.4:
                key = rng.choice(sorted(changed))
                changed[rng.choice([key, 3, None, ("a", "b")])] = only_in_torch_files(rng, torch.ones(32, 32))
            names = ["model", "ema", "state_dict", "optimizer", "x", 0]
            content = {
                rng.choice(names): changed,
                **({rng.choice(names): rng.choice(ODD)} if rng.random() < 0.5 else {}),
            }
            content = changed if rng.random() < 0.6 else content
            torch.save(content, file, _use_new_zipfile_serialization=rng.random() < 0.8)
        return lambda: (picture_side(str(file)), load_prior(file, config=config))[1]

    check(case, 60)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_bytes(suffix: str, tmp_path: Path, folder: Path) -> None:
    whole, file = tmp_path / f"whole{suffix}", tmp_path / f"changed{suffix}"
    state = dict(unet().state_dict())
    (save_file if suffix == ".safetensors" else torch.save)(state, whole)

    def case(rng: random.Random) -> Callable[[], object]:
        shutil.copy(whole, file)
        changed_bytes(rng, file)
        target = copied(folder, tmp_path / "folder")
        if rng.random() < 0.5:
            return lambda: (picture_side(str(file)), load_prior(file))[1]
        (target / "unet" / "diffusion_pytorch_model.safetensors").unlink()
        shutil.copy(file, target / "unet" / f"diffusion_pytorch_model{'.bin' if suffix == '.pt' else suffix}")
        return lambda: load_prior(target)

    check(case, 60)


PARTS = {"unet/config.json": 60, "vae/config.json": 60, "text_encoder/config.json": 30}


@pytest.mark.parametrize("part", PARTS)
def test_settings_of_latent_diffusion(part: str, prompted: Path, tmp_path: Path) -> None:
    target = copied(prompted, tmp_path / "folder")
    valid = json.loads((target / part).read_text())

    def case(rng: random.Random) -> Callable[[], object]:
        write_json(target / part, changed_settings(rng, valid))
        if rng.random() < 0.1:
            changed_bytes(rng, target / part)
        return lambda: (picture_side(str(target)), load_prior(target))[1]

    check(case, PARTS[part])


@pytest.mark.parametrize("part", ["unet/config.json", "scheduler/scheduler_config.json"])
def test_settings_of_pixels(part: str, folder: Path, tmp_path: Path) -> None:
    target = copied(folder, tmp_path / "folder")
    valid = json.loads((target / part).read_text())

    def case(rng: random.Random) -> Callable[[], object]:
        write_json(target / part, changed_settings(rng, valid))
        return lambda: (picture_side(str(target)), load_prior(target))[1]

    check(case, 80)


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_weights_of_folders(part: str, prompted: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    target = copied(prompted, tmp_path / "folder")
    (file,) = (target / part).glob("*.safetensors")
    state = load_file(prompted / part / file.name)

    def case(rng: random.Random) -> Callable[[], object]:
        changed = changed_state(rng, state)
        save_file({k: v.contiguous() if v.numel() < 2**20 else v[:1].clone() for k, v in changed.items()}, file)
        return lambda: load_prior(target)

    check(case, 20)


ARGUMENTS = {"num_heads": 4, "num_heads_upsample": -1, "noise_schedule": "linear", "steps": 1000, "class_cond": False}


@pytest.mark.parametrize("suffix", [".json", ".yaml"])
def test_arguments_of_adm(suffix: str, adm_file: Path, tmp_path: Path) -> None:
    valid = {**json.loads((adm_file.parent / "config.json").read_text()), **ARGUMENTS}
    file = tmp_path / f"arguments{suffix}"

    def case(rng: random.Random) -> Callable[[], object]:
        changed = changed_settings(rng, valid)
        file.write_text(json.dumps(changed) if suffix == ".json" else yaml.safe_dump(changed))
        if rng.random() < 0.1:
            changed_bytes(rng, file)
        return lambda: load_prior(adm_file, config=file)

    check(case, 50)
