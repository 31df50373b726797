"""The reports of a sweep: scores of what is there, ranking.md, .csv and .tex, heat maps, curves and strips."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pag_inverse.data.files import write_whole
from pag_inverse.data.images import Picture, read_picture
from pag_inverse.experiments.entries import DistanceLine
from pag_inverse.experiments.methods import digest
from pag_inverse.experiments.sweep_grid import Setting
from pag_inverse.experiments.sweep_subjects import Subject, SweepRequest
from pag_inverse.metrics.distribution import Inception, cached_features, fid
from pag_inverse.metrics.networks import MetricsRequest
from pag_inverse.metrics.paired import gradient_magnitude
from pag_inverse.metrics.perceptual import Lpips
from pag_inverse.metrics.spectrum import band_powers, gaussian_distance, half_interval_of_change
from pag_inverse.metrics.statistics import paired_difference
from pag_inverse.reports.figures import save
from pag_inverse.reports.sweep import MEASURES, Score, SweepReport, SweepRow, sweep_csv, sweep_latex, sweep_markdown
from pag_inverse.reports.sweep_figures import curves, heat_map, strip
from pag_inverse.storage.entries import Entry
from pag_inverse.storage.run_store import RunStore

SHOWN = 30  # settings that are printed
Values = Mapping[str, Mapping[str, Any]]  # measure -> picture -> its number, or its vector
NOTES = {
    "restoration": (
        "change: from the same solver with s = 0 on the same measurements; ± is half its 95 % interval (Student's t, "
        "paired by picture). Sharpness: mean gradient over the truth's; 1 is as sharp as the truth. Residual: "
        "||y - A x|| / (sigma sqrt m); about 1 is right."
    ),
    "generation": (
        "Spectral distance: Wasserstein distance of the Gaussians that fit the power spectra (8 bands, dB) of samples "
        "and of real pictures; 0 for equal sets. change: from s = 0 with the same noise; ± is half its 95 % interval "
        "(bootstrap, paired by sample). Sharpness: mean gradient over that of the real pictures."
    ),
}


@dataclass(frozen=True)
class Networks:
    """The networks of LPIPS and FID, None where their weights were not given."""

    lpips: Lpips | None = None
    inception: Inception | None = None
    inception_sha256: str = ""

    @classmethod
    def of(cls, request: SweepRequest, device: str) -> Networks:
        """From the request's files; ValueError where one cannot be used, or does nothing, or `rank_by` needs one."""
        given = {"lpips": request.lpips_weights, "fid": request.inception_weights}
        other = {"lpips": "--lpips-weights", "fid": "--inception-weights"}
        allowed = ("fid", "spectrum") if request.generation else ("lpips", "psnr", "ssim")
        what = "samples" if request.generation else "restorations"
        for name, path in given.items():
            if path is not None and name not in allowed:
                raise ValueError(f"{other[name]} does nothing here: {what} are measured by {', '.join(allowed)}")
        if request.rank_by is not None and request.rank_by not in allowed:
            raise ValueError(f"--rank-by {request.rank_by}: {what} are ranked by {', '.join(allowed)}")
        if request.rank_by in given and given[request.rank_by] is None:
            raise ValueError(f"--rank-by {request.rank_by} needs {other[request.rank_by]}")
        metrics = MetricsRequest(request.lpips_net, request.lpips_weights, request.inception_weights)
        metrics.check()
        if not any(given.values()):
            return cls()
        found = metrics.load(device)
        return cls(
            found.lpips if isinstance(found.lpips, Lpips) and request.lpips_weights else None,
            found.inception if isinstance(found.inception, Inception) else None,
            found.inception_sha256,
        )


def write_report(subject: Subject, store: RunStore, networks: Networks, rank_by: str | None) -> str:
    """Write all reports into the store's folder; what to print."""
    report = SweepScores(subject, store, networks).report(rank_by)
    if not report.rows:
        return f"{report.title}: nothing is made yet"
    folder = store.folder
    texts = {"md": sweep_markdown(report), "csv": sweep_csv(report), "tex": sweep_latex(report)}
    for kind, text in texts.items():
        write_whole(folder / f"ranking.{kind}", text.encode(errors="backslashreplace"))
    truth = ("truth", next(iter(subject.real.values()))) if subject.paired else None
    for solver in report.solvers():
        if not any(row.s > 0 and row.solver == solver for row in report.rows):
            continue
        for name, figure in (("heat_map", heat_map(report, solver)), ("curves", curves(report, solver))):
            for kind in ("png", "pdf"):
                save(figure, folder / f"{name}_{solver}.{kind}")
        for name, scales in (("scales", True), ("perturbations", False)):
            drawn = strip(report, solver, truth, scales=scales)
            if drawn is not None:
                save(drawn, folder / f"{name}_{solver}.png")
    lines = texts["md"].splitlines()
    end = 4 + len(report.rows)  # of the table
    further = [f"... {len(report.rows) - SHOWN} more"] if len(report.rows) > SHOWN else []
    shown = [*lines[: min(end, 4 + SHOWN)], *further, "", *report.notes]
    return "\n".join([*shown, f"written to {folder / 'ranking.md'}"])


class SweepScores:
    """The scores of every setting, from the pictures and lines that are there."""

    def __init__(self, subject: Subject, store: RunStore, networks: Networks) -> None:
        self.subject, self.store, self.networks = subject, store, networks
        keys = [subject.key(setting, name) for setting in subject.settings for name in subject.names]
        finished, entries = store.survey(keys).finished, store.entries()
        self.entries = {key: entries[key] for key in finished}

    def report(self, rank_by: str | None) -> SweepReport:
        """Every setting with a picture or more, or two of a generation."""
        least = 1 if self.subject.paired else 2
        values = {setting: self.values(setting) for setting in self.subject.settings}
        plain = {setting.solver: values[setting] for setting in values if setting.s == 0}
        rows = [
            self.row(setting, found, plain[setting.solver])
            for setting, found in values.items()
            if len(found["sharpness"]) >= least
        ]
        default = "psnr" if self.subject.paired else "fid" if self.networks.inception else "spectrum"
        note = NOTES["restoration" if self.subject.paired else "generation"]
        return SweepReport(self.subject.title, rank_by or default, rows, (note,))

    def made(self, setting: Setting) -> dict[str, Entry]:
        """The entries of a setting by picture."""
        keys = {name: self.subject.key(setting, name) for name in self.subject.names}
        return {name: self.entries[key] for name, key in keys.items() if key in self.entries}

    def row(self, setting: Setting, values: Values, plain: Values) -> SweepRow:
        """A setting's scores, with what they changed from the same solver without PAG."""
        made = self.made(setting)
        measured = {name: self.score(name, values[name], plain[name], setting.s > 0) for name in values}
        pictures = {name: self.store.path(entry, "picture") for name, entry in made.items()}
        ordered = {name: measured[name] for name in MEASURES if name in measured}
        return SweepRow(setting.solver, setting.guidance, setting.layers, setting.s, len(made), ordered, pictures)

    def values(self, setting: Setting) -> Values:
        """The numbers, or for distances of sets the features, of each picture."""
        made = self.made(setting)
        pictures = {name: read_picture(self.store.path(entry, "picture")) for name, entry in made.items()}
        if self.subject.paired:
            found = {m: {name: entry[m] for name, entry in made.items()} for m in ("psnr", "ssim", "sharpness")}
            found["residual"] = {name: entry["residual"] for name, entry in made.items() if entry["residual"]}
            if self.networks.lpips is not None:
                found["lpips"] = self._lpips(made, pictures)
            return found
        real = float(np.mean([gradient_magnitude(picture) for picture in self.subject.real.values()]))
        features: dict[str, dict[str, Any]] = {
            "sharpness": {name: gradient_magnitude(picture) / max(real, 1e-12) for name, picture in pictures.items()},
            "spectrum": {name: band_powers(picture) for name, picture in pictures.items()},
        }
        if self.networks.inception is not None:
            features["fid"] = {name: self._features(name, picture) for name, picture in pictures.items()}
        return features

    def score(self, measure: str, mine: Mapping[str, Any], plain: Mapping[str, Any], guided: bool) -> Score:
        """The score of all pictures, and the change over those that both have."""
        if measure in ("spectrum", "fid"):
            return self._distance(measure, mine, plain, guided)
        mean = float(np.mean(list(mine.values()))) if mine else math.nan
        common = [name for name in mine if name in plain]
        if not (common and guided):
            return Score(mean)
        change = paired_difference([mine[name] for name in common], [plain[name] for name in common])
        return Score(mean, change.mean, change.half)

    def _distance(self, measure: str, mine: Mapping[str, Any], plain: Mapping[str, Any], guided: bool) -> Score:
        """The distance of the set of samples from the real pictures."""
        if len(mine) < 2:
            return Score(math.nan)
        of: Mapping[str, Callable[[Any, Any], float]] = {"spectrum": gaussian_distance, "fid": _fid}
        real = self._real(measure)
        mean, common = of[measure](_stack(mine, mine), real), [name for name in mine if name in plain]
        if len(common) < 2 or not guided:
            return Score(mean)
        after, before = _stack(mine, common), _stack(plain, common)
        change = of[measure](after, real) - of[measure](before, real)
        half = half_interval_of_change(after, before, real) if measure == "spectrum" else math.nan
        return Score(mean, change, half)

    def _real(self, measure: str) -> Any:
        of = {"spectrum": lambda _, picture: band_powers(picture), "fid": self._features}[measure]
        return np.stack([of(name, picture) for name, picture in self.subject.real.items()])

    def _features(self, name: str, picture: Picture) -> Any:
        network = self.networks.inception
        assert network is not None
        key = self.networks.inception_sha256
        return cached_features(self.store.folder / "features", name, picture, network, key)["2048"]

    def _lpips(self, made: Mapping[str, Entry], pictures: Mapping[str, Picture]) -> dict[str, float]:
        """LPIPS of each restoration; computed once, and kept in lpips-000.jsonl."""
        network = self.networks.lpips
        assert network is not None
        known, found = {line["key"]: line["lpips"] for line in self.store.lines("lpips", DistanceLine)}, {}
        for name, entry in made.items():
            key = digest([network.net, entry["files"]["picture"]["sha256"], name])
            if key not in known:
                known[key] = network(pictures[name], self.subject.real[name])
                self.store.append("lpips", {"key": key, "lpips": known[key]})
            found[name] = known[key]
        return found


def _stack(of: Mapping[str, Any], names: Sequence[str] | Mapping[str, Any]) -> Any:
    return np.stack([of[name] for name in names])


def _fid(a: Any, b: Any) -> float:
    import torch

    return fid(torch.from_numpy(a), torch.from_numpy(b))
