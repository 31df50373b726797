"""Files that are no checkpoint, or hold what is no weight: one line, before memory is taken or anything runs."""

from __future__ import annotations

import os
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from pag_inverse import PixelPrior, load_prior
from pag_inverse.priors.checkpoints.picture_side import picture_side

KEY = "input_blocks.0.0.weight"


@pytest.fixture(scope="module")
def state(adm_checkpoint: Path) -> dict[str, Tensor]:
    return torch.load(adm_checkpoint, weights_only=True)


@pytest.fixture
def load(adm_checkpoint: Path) -> Callable[[Path], Any]:
    return lambda file: load_prior(file, config=adm_checkpoint.parent / "config.json")


def refused(load: Callable[[Path], Any], file: Path, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        load(file)
    assert "\n" not in str(error.value) and str(file) in str(error.value)


TENSORS: list[tuple[str, Callable[[Tensor], Any], str]] = [
    ("whole numbers", lambda w: w.to(torch.int32), "tensor of another kind .int32"),
    ("truth values", lambda w: w.bool(), "tensor of another kind .bool"),
    ("complex", lambda w: w.to(torch.complex64), "tensor of another kind .complex64"),
    ("float8", lambda w: w.to(torch.float8_e5m2), "tensor of another kind .float8_e5m2"),
    ("quantised", lambda w: torch.quantize_per_tensor(w, 0.1, 0, torch.qint8), "tensor of another kind .qint8"),
    ("sparse", lambda w: w.to_sparse(), "tensor of another kind .float32, sparse_coo"),
    ("without numbers", lambda w: w.to("meta"), "tensor of another kind .float32, strided, on meta"),
    ("expanded", lambda w: torch.zeros(1).expand(2**20, 2**20), "more numbers than the file holds"),
    ("one number", lambda w: torch.tensor(1.0), r"has the shape \(\)"),
    ("of rank 5", lambda w: w[None], r"has the shape \(1, 32, 3, 3, 3\)"),
    ("empty", lambda w: w[:0], "is empty, or holds NaN"),
    ("NaN", lambda w: w.clone().index_fill_(0, torch.tensor(3), torch.nan), "holds NaN or infinite numbers"),
    ("infinite", lambda w: w / 0, "holds NaN or infinite numbers"),
    ("beyond float32", lambda w: w.double() * 1e300, "holds NaN or infinite numbers"),
]


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(("make", "message"), [case[1:] for case in TENSORS], ids=[case[0] for case in TENSORS])
def test_tensors_that_are_no_weights(make: Any, message: str, state: Any, load: Any, tmp_path: Path) -> None:
    torch.save({**state, KEY: make(state[KEY])}, tmp_path / "odd.pt")
    refused(load, tmp_path / "odd.pt", message)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_real_numbers_of_any_length_are_weights(dtype: torch.dtype, state: Any, load: Any, tmp_path: Path) -> None:
    save_file({key: value.to(dtype) for key, value in state.items()}, tmp_path / "other.safetensors")
    prior = load(tmp_path / "other.safetensors")
    assert torch.equal(prior.unet.conv_in.weight, state[KEY].to(dtype).float())


KEYS = [
    ("", "a key is ''; it must be a text"),
    ("nodot", "unknown key"),
    ("a." * 3000, "a key is 'a.a."),
    ("line\nbreak.weight", "a key is 'line"),
    (3, "a key is 3"),
    (f"input_blocks.{'9' * 100}.0.in_layers.0.weight", "unknown module"),
    ("input_blocks.99.0.in_layers.0.weight", "key input_blocks.9.0.out_layers.3.weight is missing"),
    ("input_blocks.999.0.in_layers.0.weight", "unknown module input_blocks.999.0"),
    ("output_blocks.90.0.in_layers.0.weight", "unknown module output_blocks.90.0"),
    ("input_blocks.2.0.conv.weight", "Unexpected key"),
]


@pytest.mark.parametrize(("key", "message"), KEYS, ids=[repr(key)[:20] for key, _ in KEYS])
def test_keys_that_name_no_weight(key: Any, message: str, state: Any, load: Any, tmp_path: Path) -> None:
    torch.save({**state, key: torch.ones(32)}, tmp_path / "odd.pt")
    refused(load, tmp_path / "odd.pt", message)


def rewritten(source: Path, target: Path, change: Callable[[bytes], bytes], compression: int = 0) -> Path:
    """A torch file with another pickle, or with compressed entries."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", compression) as new:
        for entry in old.infolist():
            content = old.read(entry)
            new.writestr(entry.filename, change(content) if entry.filename.endswith("data.pkl") else content)
    return target


def test_torch_files_that_torch_did_not_write(tmp_path: Path, load: Any) -> None:
    torch.save({"a.b": torch.zeros(4)}, tmp_path / "whole.pt")
    odd = tmp_path / "odd.pt"
    torch.save({"a.b": torch.zeros(2**22)}, tmp_path / "large.pt")
    refused(load, rewritten(tmp_path / "large.pt", odd, bytes, zipfile.ZIP_DEFLATED), "entries are compressed")
    more = rewritten(tmp_path / "whole.pt", odd, lambda p: p.replace(b"K\x04t", b"J" + struct.pack("<i", 2**30) + b"t"))
    refused(load, more, "damaged or truncated")
    call = b"\x80\x02c__builtin__\nbytearray\nJ" + struct.pack("<i", 2**31 - 1) + b"\x85R."
    refused(load, rewritten(tmp_path / "whole.pt", odd, lambda p: call), "makes a bytearray")
    refused(load, rewritten(tmp_path / "whole.pt", odd, lambda p: p + bytes(2**23)), "no data.pkl of at most 2 MB")
    with zipfile.ZipFile(odd, "w") as archive:
        archive.writestr("notes.txt", "nothing")
    refused(load, odd, "no data.pkl")


def test_pickles_that_name_their_parts_too_often(tmp_path: Path, load: Any) -> None:
    """Each tuple is twice the one before it: its hash as a key would take 2^60 steps."""
    torch.save({"a.b": torch.zeros(4)}, tmp_path / "whole.pt")
    pairs = b"".join(b"q%ch%c\x86" % (i, i) for i in range(60))
    call = b"\x80\x02}K\x01" + pairs + b"K\x01s."
    odd = rewritten(tmp_path / "whole.pt", tmp_path / "odd.pt", lambda p: call)
    refused(load, odd, "names the same parts too often")
    (tmp_path / "old.pt").write_bytes(call)
    refused(load, tmp_path / "old.pt", "names the same parts too often")


def test_entries_that_share_their_bytes(tmp_path: Path, load: Any) -> None:
    """A directory that lists one entry many times would take its memory as many times."""
    with zipfile.ZipFile(tmp_path / "odd.pt", "w") as archive:
        archive.writestr("a/data.pkl", b"\x80\x02}.")
        archive.writestr("a/data/0", bytes(2**16))
        entry = archive.infolist()[-1]
        archive.filelist += [entry] * 20
    refused(load, tmp_path / "odd.pt", "entries are larger than the file")


def test_a_torch_file_of_the_old_format(state: Any, load: Any, tmp_path: Path, adm: PixelPrior) -> None:
    torch.save(state, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    assert load(tmp_path / "old.pt").fingerprint == adm.fingerprint
    whole = (tmp_path / "old.pt").read_bytes()
    (tmp_path / "old.pt").write_bytes(whole[: len(whole) // 2])
    refused(load, tmp_path / "old.pt", "damaged or truncated")


HEADERS = {
    "longer than the file": struct.pack("<Q", 2**40) + b"{}",
    "of no JSON": struct.pack("<Q", 4) + b"nono",
    "of tensors beyond the file": struct.pack("<Q", 56) + b'{"a.b":{"dtype":"F32","shape":[9],"data_offsets":[0,36]}}',
    "of shapes beyond the bytes": struct.pack("<Q", 59)
    + b'{"a.b":{"dtype":"F32","shape":[99,9],"data_offsets":[0,4]}}1234',
    "of no known format": struct.pack("<Q", 56) + b'{"a.b":{"dtype":"F99","shape":[1],"data_offsets":[0,4]}}1234',
    "empty": b"",
}  # fmt: skip


@pytest.mark.parametrize("header", HEADERS.values(), ids=HEADERS)
def test_headers_that_lie(header: bytes, tmp_path: Path, load: Any) -> None:
    (tmp_path / "odd.safetensors").write_bytes(header)
    refused(load, tmp_path / "odd.safetensors", "damaged or truncated")
    assert picture_side(str(tmp_path / "odd.safetensors")) == 256


@pytest.mark.parametrize("suffix", [".pt", ".ckpt", ".safetensors", ".txt"])
def test_what_is_no_regular_file(suffix: str, tmp_path: Path, load: Any) -> None:
    pipe, gone = tmp_path / f"pipe{suffix}", tmp_path / f"gone{suffix}"
    os.mkfifo(pipe)
    refused(load, pipe, "a pipe or a device")
    gone.symlink_to(tmp_path / "nowhere")
    refused(load, gone, "no such file")
    (tmp_path / f"device{suffix}").symlink_to("/dev/zero")
    refused(load, tmp_path / f"device{suffix}", "a pipe or a device")
    (tmp_path / f"folder{suffix}").mkdir()
    with pytest.raises(ValueError, match=r"config is given but .* is a folder"):
        load(tmp_path / f"folder{suffix}")
    refused(load_prior, tmp_path / f"folder{suffix}", r"config\.json: no such file")
    assert [picture_side(str(tmp_path / f"{name}{suffix}")) for name in ("pipe", "gone", "device", "folder")] == [
        256
    ] * 4


def test_a_file_whose_name_has_two_lines(tmp_path: Path) -> None:
    (tmp_path / "line\nbreak.pt").write_bytes(b"")
    with pytest.raises(ValueError, match=r"line break\.pt") as error:
        load_prior(tmp_path / "line\nbreak.pt")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["nul\0byte", "x" * 5000, "line\nbreak", "", "nowhere.pt"])
def test_paths_that_cannot_be(name: str) -> None:
    assert picture_side(name) == 256
    if name:
        with pytest.raises(ValueError, match="unknown prior") as error:
            load_prior(name)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[1, 2]",
        b"{",
        b'{"sample_size": "x"}',
        b'{"sample_size": [1, "x"]}',
        b'{"sample_size": true}',
        b'{"sample_size": -3}',
        b'{"sample_size": 1e400}',
        b'{"sample_size": {}}',
        b"\xff",
        b"[" * 10**5,
    ],
    ids=repr,
)
def test_the_side_of_an_odd_folder(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(content[:60] if content[:2] != b"[[" else content)
    assert picture_side(str(tmp_path)) == 256
    for part in ("unet", "vae"):
        (tmp_path / part).mkdir()
    (tmp_path / "unet" / "config.json").write_bytes(b'{"sample_size": 32}')
    (tmp_path / "vae" / "config.json").write_text('{"block_out_channels": ' + str(list(range(10**5))) + "}")
    assert 32 <= picture_side(str(tmp_path)) < 2**24


YAMLS = {
    "aliases": "a: &a [1,1,1,1,1,1,1,1,1]\n"
    + "".join(f"{y}: &{y} [{','.join([f'*{x}'] * 9)}]\n" for x, y in zip("abcdefgh", "bcdefghi", strict=True)),
    "itself": "num_heads: &a [*a]\n",
    "large": "a: 1\n" * 2**15,
    "a list": "- 1\n",
    "a key of two lines": '"num\\nheads": 4\n',
    "code": "num_heads: !!python/object/apply:os.getpid []\n",
}  # fmt: skip


@pytest.mark.parametrize("text", YAMLS.values(), ids=YAMLS)
def test_arguments_that_are_no_settings(text: str, tmp_path: Path, adm_checkpoint: Path) -> None:
    (tmp_path / "arguments.yaml").write_text(text)
    with pytest.raises(ValueError, match=r"arguments\.yaml") as error:
        load_prior(adm_checkpoint, config=tmp_path / "arguments.yaml")
    assert "\n" not in str(error.value) and len(str(error.value)) < 500
