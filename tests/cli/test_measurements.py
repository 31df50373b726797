"""The solve command with measurements of one's own: folders, truths, what is missing, and what is said of them."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from operators import gaussian_kernel
from pag_inverse.cli.solve import main
from pag_inverse.data.images import bundled_photograph, prepare, to_uint8, write_png
from pag_inverse.restoration.summary import residual_warning

HOLE = (slice(20, 40), slice(24, 44))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two photographs of different sizes with a hole, noise of 0.05 outside of it, their masks and truths."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for folder in ("y", "masks", "truths"):
        (tmp_path / folder).mkdir()
    for name, side in (("chelsea", 64), ("coffee", 96)):
        x = prepare(bundled_photograph(name), side)
        mask = np.full((side, side), 255, np.uint8)
        mask[HOLE] = 0
        write_png(f"truths/{name}.png", x)
        PIL.Image.fromarray(mask).save(f"masks/{name}.png")
        noisy = x + 0.05 * rng.standard_normal(x.shape).astype(np.float32)
        np.save(f"y/{name}.npy", np.where(mask > 0, noisy, -1).astype(np.float32))
    return tmp_path


def solve(*args: str, task: str = "inpaint", output: str = "out") -> int:
    try:
        return main(["--task", task, *args, "--steps", "1", "--output", output])
    except SystemExit as stop:
        return int(stop.code or 0)


def manifest(folder: str = "out") -> dict[str, Any]:
    return json.loads((Path(folder) / "manifest.json").read_text())


def picture(name: str) -> np.ndarray:
    return np.asarray(PIL.Image.open(name), int)


def test_a_folder_of_two_sizes_with_masks_and_truths_by_name(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert solve("--measurement", "y", "--mask", "masks", "--truth", "truths") == 0
    told = capsys.readouterr()
    assert "64 x 64 to 96 x 96" in told.err and "chelsea: sigma is estimated: 0.0" in told.err
    images = manifest()["images"]
    for name, side in (("chelsea", 64), ("coffee", 96)):
        assert picture(f"out/{name}_restoration.png").shape == (side, side, 3)
        assert images[name]["sigma"] == pytest.approx(0.05, rel=0.15) and images[name]["sigma_is_estimated"]
        assert 5 < images[name]["metrics"]["restoration"]["psnr"] < 40 and f"{name}: restoration" in told.out
    assert solve("--measurement", "y/coffee.npy", "--mask", "masks/coffee.png", output="one") == 0
    assert Path("one/coffee_restoration.png").read_bytes() == Path("out/coffee_restoration.png").read_bytes()
    PIL.Image.new("L", (96, 96), 255).save("masks/coffee.png")  # another mask is another measurement
    assert solve("--measurement", "y", "--mask", "masks", "--truth", "truths") == 2
    assert "coffee" in capsys.readouterr().err


def test_files_that_belong_to_no_measurement_are_told(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("masks/rocket.png", "masks/a.png", "masks/b.png", "truths/rocket.png"):
        PIL.Image.new("L", (64, 64), 255).save(name)
    Path("masks/notes.txt").write_text("no mask")
    assert solve("--measurement", "y", "--mask", "masks", "--truth", "truths", "--dry-run") == 0
    told = [line for line in capsys.readouterr().err.splitlines() if "to no measurement" in line]
    assert told == [
        "notice     --mask masks: 3 files belong to no measurement (a.png, b.png, ...); the names must be equal",
        "notice     --truth truths: 1 file belongs to no measurement (rocket.png); the names must be equal",
    ]
    assert solve("--measurement", "y/coffee.npy", "--mask", "masks", "--dry-run") == 0  # one of many, as it was meant
    assert "to no measurement" not in capsys.readouterr().err
    Path("kernels").mkdir()
    for name in ("chelsea", "coffee", "other"):
        np.save(f"kernels/{name}.npy", gaussian_kernel(9, 1.0))
    assert solve("--measurement", "y", "--kernel", "kernels", "--dry-run", task="deblur") == 0
    assert "--kernel kernels: 1 file belongs to no measurement (other.npy)" in capsys.readouterr().err


def test_what_is_missing_by_a_box_a_colour_or_a_transparent_part(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All three, and a mask, give the same restoration where they mean the same pixels."""
    marked, mask = picture("truths/chelsea.png").astype(np.uint8), picture("masks/chelsea.png").astype(np.uint8)
    marked[HOLE] = (250, 3, 255)
    PIL.Image.fromarray(marked).save("chelsea.png")
    PIL.Image.fromarray(np.dstack([marked, mask])).save("erased.png")
    Path("a").mkdir()
    Path("erased.png").rename("a/chelsea.png")
    ways = {
        "mask": ["--measurement", "chelsea.png", "--mask", "masks/chelsea.png"],
        "box": ["--measurement", "chelsea.png", "--box", "20", "24", "20", "20"],
        "colour": ["--measurement", "chelsea.png", "--remove-colour", "#ff00ff", "--grow", "0"],
        "transparent": ["--measurement", "a/chelsea.png"],
    }
    for way, args in ways.items():
        assert solve(*args, "--sigma", "0.02", output=way) == 0
        assert Path(way, "chelsea_restoration.png").read_bytes() == Path("mask/chelsea_restoration.png").read_bytes()
    told = capsys.readouterr().err
    assert "the transparent pixels are the hole: 9.8 % of the picture" in told and "#ff00ff and 0 pixels" in told
    inverted = PIL.Image.fromarray(255 - mask)
    inverted.save("inverted.png")
    convention = ["--mask-convention", "white-missing"]
    assert solve(*ways["mask"][:2], "--mask", "inverted.png", *convention, "--sigma", "0.02", output="inverted") == 0
    assert Path("inverted/chelsea_restoration.png").read_bytes() == Path("mask/chelsea_restoration.png").read_bytes()
    capsys.readouterr()
    assert solve(*ways["mask"][:2], "--mask", "inverted.png", "--dry-run", output="wrong") == 0
    assert "10 % of the pixels count as measured, and they are all of one colour" in capsys.readouterr().err


def test_known_pixels_are_pasted_with_a_hard_or_a_soft_edge(here: Path) -> None:
    args = ["--measurement", "y/coffee.npy", "--mask", "masks/coffee.png", "--sigma", "0.05"]
    for edge in ("0", "4"):
        assert solve(*args, "--composite", "measurement", "--composite-edge", edge, output=edge) == 0
    assert solve(*args, output="plain") == 0
    hard, soft, plain = (picture(f"{name}/coffee_restoration.png") for name in ("0", "4", "plain"))
    y, known = to_uint8(np.load("y/coffee.npy")).astype(int), picture("masks/coffee.png") > 0
    assert np.abs(hard - y)[known].max() <= 1 and np.array_equal(hard[~known], plain[~known])
    assert np.array_equal(soft[~known], plain[~known])
    assert np.abs(soft - y)[:10].max() <= 1  # ten pixels and more from the hole
    row = soft[19, 30] - (y[19, 30] + 4 * plain[19, 30]) / 5  # next to it: a fifth of what was measured
    assert np.abs(row).max() <= 1


def test_a_small_picture_becomes_so_many_times_larger(here: Path) -> None:
    write_png("small.png", prepare(bundled_photograph("chelsea"), 24))
    assert solve("--measurement", "small.png", "--scale", "3", task="super_resolution_x4") == 0
    assert picture("out/small_restoration.png").shape == (72, 72, 3)
    assert manifest()["settings"]["operator_settings"]["scale"] == 3


def test_kernels_by_name_and_the_task_s_own(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("kernels").mkdir()
    for name, std in (("chelsea", 1.0), ("coffee", 2.0)):
        np.save(f"kernels/{name}.npy", gaussian_kernel(9, std))
    assert solve("--measurement", "truths", "--kernel", "kernels", "--dry-run", task="deblur") == 0
    assert "the kernel is the task's" not in capsys.readouterr().err
    assert solve("--measurement", "truths", "--dry-run", task="gaussian_deblur") == 0
    assert "the kernel is the task's (kernel_size 61, std 3.0)" in capsys.readouterr().err


def test_a_residual_far_from_the_noise_is_a_warning(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A kernel of another blur, sigma known: the restoration cannot agree with the measurement."""
    args = ["--measurement", "truths/coffee.png", "--sigma", "0.01"]
    assert solve(*args, task="gaussian_deblur") == 0
    told = capsys.readouterr().err
    assert "warning: coffee: the residual is" in told and "the kernel" in told


def test_residuals_are_judged_by_what_the_solver_leaves() -> None:
    """Inpainting keeps the noise of known pixels, so that only a large residual is told."""
    assert residual_warning(1.0, 0.05) == residual_warning(0.4, 0.05, 0.0) == ""
    assert "sigma is probably too large" in residual_warning(0.4, 0.05)
    assert "look at the mask" in residual_warning(1.8, 0.05, 0.0, "the mask")
    assert residual_warning(2.7, 0.003) == ""  # a level of 255


@pytest.mark.parametrize("scale", ["0", "1"])
def test_a_scale_that_enlarges_nothing_is_refused(here: Path, scale: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert solve("--measurement", "truths", "--scale", scale, task="super_resolution") == 2
    assert len(capsys.readouterr().err.splitlines()) == 1 and not Path("out").exists()


def test_kernels_that_are_none_are_refused(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A coloured photograph, and a kernel that is larger than the picture."""
    np.save("large.npy", gaussian_kernel(201, 3.0))
    for kernel, said in (("truths/coffee.png", "has colours"), ("large.npy", "201 x 201 pixels, the picture")):
        assert solve("--measurement", "truths/coffee.png", "--kernel", kernel, task="deblur") == 2
        told = capsys.readouterr().err
        assert said in told and len(told.splitlines()) == 1 and not Path("out").exists()


def test_half_of_a_small_picture_may_be_missing(here: Path) -> None:
    assert solve("--input", "truths/chelsea.png", "--size", "48", task="box_inpainting") == 0
    drawn = np.load("out/chelsea_mask.npy")
    assert drawn.shape == (48, 48) and (drawn == 0).sum() == 24 * 24 and drawn[:12].all() and drawn[:, -12:].all()


def test_masks_with_wide_soft_edges_are_cut_in_the_middle(here: Path, caplog: pytest.LogCaptureFixture) -> None:
    ramp = np.clip(np.abs(np.arange(96) - 48) * 16 - 256, 0, 255).astype(np.uint8)  # from 16 to 32 pixels off
    PIL.Image.fromarray(np.minimum(np.full((96, 96), 255), ramp[None]).astype(np.uint8)).save("soft.png")
    assert solve("--measurement", "truths/coffee.png", "--mask", "soft.png", "--dry-run") == 0
    assert "soft edges" in caplog.text


def test_unreadable_files_of_a_folder_are_named_or_left_out(here: Path, caplog: pytest.LogCaptureFixture) -> None:
    Path("truths/broken.png").write_text("nothing")
    args = ["--measurement", "truths", "--box", "0", "0", "9", "9", "--dry-run"]
    assert solve(*args) == 2
    assert solve(*args, "--skip-unreadable") == 0
    assert "broken.png is left out" in caplog.text


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ("--measurement y --mask lonely", "lonely: no file for the mask of coffee"),
        (
            "--measurement y/coffee.npy --mask masks/chelsea.png",
            "masks/chelsea.png: the mask has 64 x 64 pixels, the picture 96 x 96: resize the mask",
        ),
        ("--measurement y/coffee.npy --mask masks/coffee.png --truth truths/chelsea.png", "its truth has 64 x 64"),
        ("--measurement y/coffee.npy --box 90 0 9 9", "does not lie inside the 96 x 96 pixels"),
        ("--measurement y/coffee.npy --box 0 0 96 96", "no measured pixel is left"),
        ("--measurement y/coffee.npy --box 0 0 9 9 --grow 200", "no measured pixel is left"),
        ("--measurement y/coffee.npy --remove-colour #00ff00", "no pixel is within 24 levels of #00ff00"),
        ("--measurement truths/coffee.png --remove-colour 128,128,128 --colour-tolerance 254", "every pixel is within"),
        ("--measurement y/coffee.npy --remove-colour 256,0,0", "it must be R,G,B with numbers from 0 to 255"),
        ("--measurement y/coffee.npy --box 0 0 9 9 --remove-colour #00ff00", "give one of them"),
        ("--measurement y/coffee.npy", "needs --mask, --box, --remove-colour, or transparent pixels"),
        ("--measurement empty --box 0 0 9 9", "no measurements in it"),
        ("--remove-colour #00ff00", "--remove-colour goes with --measurement"),
        ("--truth truths", "--truth goes with --measurement"),
        ("--measurement y --box 0 0 9 9 --mask-convention white-missing", "--mask-convention goes with --mask"),
        ("--measurement y --box 0 0 9 9 --composite-edge 2", "--composite-edge goes with --composite"),
        ("--measurement y --box 0 0 9 9 --scale 2", "--scale goes with a super-resolution task"),
        ("--measurement y --mask few.png", "sigma is estimated from at least 200 pixels"),
        ("--task deblur --measurement y --remove-colour #00ff00", "go with an inpainting task"),
        ("--task deblur --measurement y --kernel even.npy", "even.npy: kernel of shape (4, 4)"),
    ],
)
def test_bad_input_is_one_line(args: str, message: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("lonely").mkdir()
    Path("empty").mkdir()
    Path("masks/chelsea.png").rename("lonely/chelsea.png")
    PIL.Image.open("lonely/chelsea.png").save("masks/chelsea.png")
    few = np.zeros((64, 64), np.uint8)
    few[:2] = 255
    PIL.Image.fromarray(few).save("few.png")
    np.save("even.npy", np.ones((4, 4)))  # its sum is not told before it is refused
    assert solve(*args.split()) == 2
    told = capsys.readouterr().err
    assert message in told and told.count("\n") == 1 and not Path("out").exists()


@pytest.mark.parametrize(("quality", "sampling", "said"), [(50, 2, "quality 50, 4:2:0"), (83, 0, "quality 83, 4:4:4")])
def test_a_jpeg_is_restored_by_its_own_quality(
    here: Path, capsys: pytest.CaptureFixture[str], quality: int, sampling: int, said: str
) -> None:
    PIL.Image.open("truths/coffee.png").save("coffee.jpg", quality=quality, subsampling=sampling)
    given = ["--task", "jpeg", "--measurement", "coffee.jpg", "--truth", "truths/coffee.png", "--output", "out"]
    assert main(given) == 0
    told = capsys.readouterr().err
    assert f"notice     the file was compressed with {said}\n" in told and "sigma is unknown" not in told
    entry = manifest()["images"]["coffee"]
    assert entry["compression"] == {"quality": quality, "subsampling": said[-5:], "exact": True}
    assert entry["metrics"]["restoration"]["psnr"] > entry["metrics"]["measurement"]["psnr"]


def test_what_is_said_of_other_tables_and_of_what_is_no_jpeg(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = PIL.Image.open("truths/coffee.png")
    tables = PIL.Image.open(io.BytesIO(jpeg_bytes(image, quality=30))).quantization  # type: ignore[attr-defined]
    tables[0][0] += 1
    image.save("own.jpg", qtables=tables)
    assert solve("--measurement", "own.jpg", task="jpeg") == 0
    assert "quality 30, 4:2:0, the nearest to the file's own tables" in capsys.readouterr().err
    assert solve("--measurement", "truths/coffee.png", task="jpeg", output="png") == 0
    assert "the file is no JPEG, and quality 10 is the task's" in capsys.readouterr().err


def jpeg_bytes(image: PIL.Image.Image, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", **options)
    return buffer.getvalue()


@pytest.mark.parametrize("noise", [("--sigma", "0.1"), ("--set", "peak=30")])
def test_noise_of_a_task_that_has_none(here: Path, capsys: pytest.CaptureFixture[str], noise: tuple[str, str]) -> None:
    assert solve("--measurement", "truths/coffee.png", *noise, task="jpeg") == 2
    assert "says that its measurements have no noise; leave" in capsys.readouterr().err
    assert not Path("out").exists()


def test_the_hint_at_a_mask_names_the_other_convention(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hole = np.zeros((96, 96), np.uint8)
    hole[10:30, 10:30] = 255
    PIL.Image.fromarray(hole).save("hole.png")
    photo = picture("truths/coffee.png").astype(np.uint8)
    photo[10:30, 10:30] = 0
    PIL.Image.fromarray(photo).save("damaged.png")
    asked = ("--measurement", "damaged.png", "--mask", "hole.png", "--sigma", "0.01")
    assert solve(*asked) == 0
    assert "--mask-convention white-missing takes white as missing" in capsys.readouterr().err
    PIL.Image.fromarray(255 - hole).save("hole.png")
    assert solve(*asked, "--mask-convention", "white-missing", output="other") == 0
    assert "--mask-convention white-measured takes white as measured" in capsys.readouterr().err


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".tif", ".png"])
def test_several_pictures_in_one_file_are_refused(here: Path, capsys: pytest.CaptureFixture[str], suffix: str) -> None:
    frames = [PIL.Image.new("RGB", (64, 64), colour) for colour in ("red", "blue", "green")]
    frames[0].save(f"moving{suffix}", save_all=True, append_images=frames[1:])
    assert solve("--measurement", f"moving{suffix}", task="denoise") == 2
    assert "3 pictures in one file; save the one that is meant" in capsys.readouterr().err


def test_holes_of_single_pixels_name_the_task_for_them(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lattice = np.zeros((96, 96), np.uint8)
    lattice[::2, ::2] = lattice[1::2, 1::2] = 255
    PIL.Image.fromarray(lattice).save("lattice.png")
    given = ("--measurement", "truths/coffee.png", "--mask", "lattice.png", "--sigma", "0.02")
    assert solve(*given) == 0
    assert "narrower than 3 pixels: --task random_inpainting" in capsys.readouterr().err
    assert solve(*given, task="random_inpainting", output="other") == 0
    assert "narrower than 3 pixels" not in capsys.readouterr().err
