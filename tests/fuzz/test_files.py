"""Fuzzed pictures, arrays, lists and YAML: each case is read, or refused in one line."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from pag_inverse.data.arrays import read_kernel, read_mask, read_measurement
from pag_inverse.data.datasets import find_images, pick_split
from pag_inverse.data.images import prepare, read_image
from pag_inverse.evaluation.plans import load_suite
from pag_inverse.settings import load_prior_config, load_task

ROOT = Path(__file__).resolve().parents[2]
READERS = (read_measurement, read_mask, read_kernel)


def pictures(rng: np.random.Generator) -> dict[str, bytes]:
    """A picture in every format and mode that Pillow writes."""
    levels = rng.integers(0, 256, (20, 24, 3), dtype=np.uint8)
    modes = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "I", "F", "YCbCr", "LAB", "HSV", "PA")
    formats = ("png", "jpeg", "gif", "bmp", "tiff", "webp", "ppm", "tga", "jpeg2000", "avif")
    found = {}
    for mode in modes:
        try:
            base = PIL.Image.fromarray(levels)
            picture = base.convert(mode) if mode not in ("I;16", "PA") else base.convert("L").convert(mode)
        except ValueError:
            continue
        for kind in formats:
            buffer = io.BytesIO()
            try:
                picture.save(buffer, format=kind)
            except (OSError, KeyError, ValueError):
                continue
            found[f"{mode.replace(';', '')}.{kind}"] = buffer.getvalue()
    return found


def test_pictures(fuzzed: Callable[..., Any], mutated: Callable[..., bytes], tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    whole = pictures(rng)
    assert len(whole) > 40
    for name, content in whole.items():
        for number in range(4):
            file = tmp_path / f"{number}_{name}"
            file.write_bytes(mutated(content, rng) if number else content)
            image = fuzzed(file.name, lambda file=file: read_image(file))
            assert image is None or (image.dtype == np.float32 and -1 <= image.min() <= image.max() <= 1)
            for read in READERS[1:] if number < 2 else ():
                fuzzed(f"{read.__name__} {file.name}", lambda read=read, file=file: read(file))
    assert fuzzed.accepted > 80 and fuzzed.refused > 80


def png(width: int, height: int, data: bytes = b"", depth: int = 8, colour: int = 2) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    "content",
    [
        png(100000, 100000),
        png(2**31 - 1, 1),
        png(9000, 9000, bytes(10)),
        png(0, 0),
        png(9000, 9000, bytes(9000 * 9001), depth=8, colour=0),
        b"P6\n1000000 1000000\n255\n",
        b"P6\n-5 5\n255\n",
        b"P5\n5 5\n0\n" + bytes(25),
        b"P4\n99999999999999999999 5\n",
        b"GIF89a" + bytes([255] * 20),
        b"BM" + bytes([255] * 60),
        b"II*\0" + struct.pack("<IH", 8, 65535) + bytes(100),
        b"II+\0" + bytes(100),
        b"RIFF\xff\xff\xff\xffWEBPVP8 " + bytes(50),
    ],
)
def test_headers_that_lie(fuzzed: Callable[..., Any], tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.png").write_bytes(content)
    fuzzed("read", lambda: read_image(tmp_path / "x.png"))


def test_arrays(fuzzed: Callable[..., Any], mutated: Callable[..., bytes], tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    dtypes = [
        "?", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8", ">f4", ">u2", "c8", "c16", "U3", "S3",
        "M8[s]", "m8[s]", "V4",
    ]  # fmt: skip
    # Odd sides: kernels have no others.
    shapes = [(), (0,), (3,), (9, 9), (1, 9, 9), (3, 9, 9), (1, 3, 9, 9), (9, 9, 3), (2, 3, 9, 9), (3, 0, 9), (1,) * 40]
    file = tmp_path / "x.npy"
    for dtype in dtypes:
        for shape in shapes[: None if dtype in ("f4", "u1", "?") else 6]:
            values = rng.integers(0, 3, shape if len(shape) < 33 else shape[:32])
            np.save(file, values.astype(dtype) if dtype[0] not in "V" else np.zeros(values.shape, dtype))
            content = file.read_bytes()
            for number in range(3):
                file.write_bytes(mutated(content, rng) if number else content)
                for read in READERS:
                    found = fuzzed(f"{read.__name__} {dtype} {shape} {number}", lambda read=read: read(file))
                    assert found is None or np.isfinite(found).all()
    assert fuzzed.accepted > 30 and fuzzed.refused > 300


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '<f8', 'fortran_order': False, 'shape': (3, 1000000000, 1000000000)}",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (-3, 5, 5)}",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (3.5, 5)}",
        "{'descr': '<f8', 'fortran_order': 3, 'shape': 5}",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (True, 5, 5)}",
        "{'descr': [('a', '<f8')], 'fortran_order': False, 'shape': (5, 5)}",
        "{'descr': 'O', 'fortran_order': False, 'shape': (5, 5)}",
        "{'descr': 'nothing', 'fortran_order': False, 'shape': (5, 5)}",
        "{'descr': None, 'fortran_order': None, 'shape': None}",
        "{'shape': (5, 5)}",
        "[" * 3000,
        "__import__('os')",
        "9" * 9000,
        "",
    ],
)
def test_headers_of_arrays(fuzzed: Callable[..., Any], tmp_path: Path, header: str) -> None:
    for version in (b"\x01\x00", b"\x02\x00", b"\x03\x00", b"\x09\x00"):
        length = len(header).to_bytes(2 if version == b"\x01\x00" else 4, "little")
        (tmp_path / "x.npy").write_bytes(b"\x93NUMPY" + version + length + header.encode() + bytes(400))
        for read in READERS:
            with pytest.raises(ValueError):
                read(tmp_path / "x.npy")
            fuzzed(f"{read.__name__} {version!r}", lambda read=read: read(tmp_path / "x.npy"))


def test_lists(fuzzed: Callable[..., Any], mutated: Callable[..., bytes], tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    images = {name: Path(name) for name in ("a_1", "b 2", "n01__c", "ü")}
    lists = [
        b"a_1.png\nb 2.png\nn01/c.png\n",
        "file,label\r\na_1.png,3\r\n".encode("utf-16"),
        b'"a_1.png";"3"\n',
        "ü.png\n".encode("cp1252"),
        b"a_1\0\n",
        b"," * 5000,
        b'"' * 5000,
        b"../../../etc/passwd\n/\n.\n..\n~\n",
        b"a_1.png\n" * 10000,
    ]
    for number in range(150):
        content = lists[number % len(lists)]
        (tmp_path / "list.txt").write_bytes(mutated(content, rng) if number >= len(lists) else content)
        found = fuzzed(number, lambda: pick_split("folder", images, str(tmp_path / "list.txt")))
        assert found is None or set(found) <= set(images)
    assert fuzzed.accepted > 10 and fuzzed.refused > 30


YAML = [
    "a: &a [*a]\n",
    "x: &x {y: *x}\n",
    "".join(f"l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 9) if i else '1'}]\n" for i in range(12)),
    "a: " + "[" * 10000,
    "a: " + "{a: " * 3000,
    "? [1, 2]\n: 3\n",
    "? {a: 1}\n: 3\n",
    "<<: 3\n",
    "<<: [{a: 1}, {a: 2}]\n",
    "!!python/object/apply:os.system ['true']\n",
    "!!binary 'x'\n",
    "a: 2001-99-99\n",
    "a: 1:99:99\n",
    "a: !!int nothing\n",
    "a: !!float nothing\n",
    "a: " + "9" * 10000,
    "- 1\n- 2\n",
    "3",
    "",
    "\x00",
    "a: 1\n---\nb: 2\n",
    "%YAML 9.9\n---\na: 1\n",
    "a: *nothing\n",
    "".join(f"k{i}: {i}\n" for i in range(20000)),
]
VALUES = [
    "null", "true", "-1", "0", "1e308", "1.0e+308", ".inf", "-.inf", ".nan", "1e-4", "nothing", "[]", "{}", "[1]",
    "{1: 2}", "'5'", "99999999999999999999999", "2001-01-01", "!!set {a}", "[[[[]]]]", "~", "0x1F", "1_000", "-0.0",
]  # fmt: skip


def values_replaced(text: str, rng: np.random.Generator) -> str:
    """A YAML file with the value of one of its lines replaced by another, or a line gone or doubled."""
    lines = text.splitlines()
    place = int(rng.integers(len(lines)))
    key, colon, _ = lines[place].partition(":")
    kind = rng.integers(4)
    if kind == 0:
        del lines[place]
    elif kind == 1:
        lines.insert(place, lines[place])
    else:
        lines[place] = f"{key}{colon} {VALUES[rng.integers(len(VALUES))]}"
    return "\n".join(lines)


def test_yaml(fuzzed: Callable[..., Any], mutated: Callable[..., bytes], tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    load: dict[str, Callable[[Path], object]] = {
        "tasks": lambda file: load_task(file, "natural", "dps", image_size=256, pag=True),
        "suites": lambda file: load_suite(str(file)),
        "priors": load_prior_config,
    }
    file = tmp_path / "x.yaml"
    for kind, use in load.items():
        for text in YAML:
            file.write_text(text, encoding="utf-8")
            fuzzed(f"{kind} {text[:30]!r}", lambda use=use: use(file))
        shipped = sorted((ROOT / "configs" / kind).glob("*.yaml"))
        for number in range(120):
            text = shipped[number % len(shipped)].read_text(encoding="utf-8")
            content = values_replaced(text, rng).encode() if number % 3 else mutated(text.encode(), rng)
            file.write_bytes(content)
            fuzzed(f"{kind} {number}", lambda use=use: use(file))
    assert fuzzed.accepted > 30 and fuzzed.refused > 150


def test_data_sets(fuzzed: Callable[..., Any], tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    names = [
        "a.png",
        "A.PNG",
        "a.jpg",
        ".a.png",
        "._a.png",
        "Thumbs.db",
        "b.heic",
        "c d.jfif",
        "ü.gif",
        "x" * 240 + ".png",
    ]
    for number in range(30):
        root = tmp_path / str(number)
        for place in ("", "n01", "n01/deeper", ".hidden", "run"):
            (root / place).mkdir(parents=True)
            for name in rng.choice(names, 3, replace=False):
                (root / place / name).write_bytes(b"")
        (root / "run" / "manifest.json").write_bytes(
            [b'{"format": "pag_inverse run"}', b"[" * 9999, b"\xff", b"{}", b"null"][number % 5]
        )
        (root / "loop").symlink_to(root)
        (root / "folder.png").mkdir()
        (root / "gone.png").symlink_to(root / "nowhere")
        for kind in ("folder", "imagenet", "ffhq"):
            found = fuzzed(f"{kind} {number}", lambda kind=kind, root=root: find_images(kind, root))
            assert found is None or not any(path.name.startswith(".") for path in found.values())


def test_sizes_of_pictures(fuzzed: Callable[..., Any]) -> None:
    image = np.zeros((3, 5, 7), np.float32)
    for size in (-1, 0, 1, 2, 3, 5, 7, 64, 301):
        for resize in ("bicubic", "reference", "nothing", ""):
            found = fuzzed((size, resize), lambda size=size, resize=resize: prepare(image, size, resize))
            assert found is None or found.shape == (3, size, size)
