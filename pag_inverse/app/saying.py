"""The sentences of the page: progress, residual, metrics, uncertainty."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping
from typing import Any

from pag_inverse.app.restoring import Outcome, Progress, Waiting
from pag_inverse.restoration.summary import LOW, off_noise


def progress_line(progress: Progress) -> str:
    """A bar, the step, the sample and the time left, as HTML."""
    of_sample = f", sample {progress.sample} of {progress.samples}" if progress.samples > 1 else ""
    left = f", about {duration(progress.seconds_left)} left" if 0 < progress.step < progress.steps else ""
    text = f"Step {progress.step} of {progress.steps}{of_sample}{left}"
    return f'<progress value="{progress.step}" max="{progress.steps}"></progress> {html.escape(text)}'


def waiting_line(waiting: Waiting) -> str:
    """The place in the queue."""
    return f"Waiting: {waiting.before} restoration{'s' if waiting.before > 1 else ''} before yours."


def duration(seconds: float) -> str:
    """Seconds as 12 s or 3 min 20 s."""
    whole = math.ceil(seconds)
    return f"{whole} s" if whole < 60 else f"{whole // 60} min {whole % 60} s"


def residual_sentence(residual: float, sigma: float | None, low: float = LOW) -> str:
    """What the residual of a restoration means; in units of the noise where sigma is known and not 0.

    low: the least one that is near the noise.

    >>> residual_sentence(1.02, 0.05)
    'Residual 1.02 (1 is the noise): the restoration agrees with the measurement up to its noise.'
    """
    if not sigma:
        levels = f"{residual:.3f} on the [-1, 1] range ({127.5 * residual:.1f} of 255 levels)"
        return f"The restoration differs from the measurement by {levels} on average (root mean square)."
    said = f"Residual {residual:.2f} (1 is the noise): "
    side = off_noise(residual, sigma, low)
    if side > 0:
        return said + (
            "the restoration does not agree with the measurement. Check the kernel, the mask and sigma, or take more "
            "steps."
        )
    if side < 0:
        return said + "the restoration follows the noise, too. Sigma may be smaller than given."
    return said + "the restoration agrees with the measurement up to its noise."


def result_text(outcome: Outcome) -> str:
    """The residual, the metrics where the picture was degraded here, and the notices, as Markdown."""
    entry = outcome.entry
    lines = [
        f"**Done in {duration(entry['seconds'])}** with solver `{outcome.solver}`.",
        residual_sentence(entry["residual"], entry.get("sigma"), outcome.low),
        *metrics_lines(entry.get("metrics") or {}),
        *(f"Notice: {text}." for text in outcome.notices),
    ]
    return "\n\n".join(lines)


def metrics_lines(metrics: Mapping[str, Mapping[str, float | None]]) -> list[str]:
    """PSNR and SSIM against the picture that was degraded, one table; nothing where there are none."""
    if not metrics:
        return []
    rows = [
        f"| {kind} | {_db(found['psnr'])} | {found['ssim']:.3f} |"
        for kind in ("measurement", "restoration", "mean")
        if (found := metrics.get(kind)) is not None
    ]
    head = "| against the picture that was degraded | PSNR, dB | SSIM |\n|---|---|---|\n"
    return [head + "\n".join(rows)]


def uncertainty_text(entry: Mapping[str, Any]) -> str:
    """What the map of uncertainty shows."""
    deviation = entry["deviation"]
    return (
        f"The standard deviation of {deviation['samples']} samples: dark where they agree, bright where they differ. "
        f"Its mean is {127.5 * deviation['mean']:.1f} of 255 levels, its largest value {deviation['picture_top']:.0f}. "
        "The download has it as numbers."
    )


def _db(psnr: float | None) -> str:
    return "inf" if psnr is None else f"{psnr:.2f}"
