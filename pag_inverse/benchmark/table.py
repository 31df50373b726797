"""The figures of the benchmark as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

BOUND = ("forward and backward", "forward", "perturbed suffix", "decode", "encode", "operator", "linear solve")
HEADS = ("prior", "solver", "px", "batch", "precision", "s/step", "bound", "images/h", "steps", "device MB",
         "process MB", "over bound", "(cpu)", "published: time", "(cpu)", "memory")  # fmt: skip

SAMPLING_HEADS = ("prior", "px", "batch", "precision", "guidance", "it/s", "time over none", "(cpu)", "device MB",
                  "process MB")  # fmt: skip


def summary(row: Mapping[str, Any], steps: int) -> dict[str, Any]:
    """A case's figures: medians of seconds, medians of each turn's ratios, images an hour for `steps` steps."""
    seconds, batch = row["seconds"], row["batch"]
    bounds, step = _bounds(seconds), median(seconds["ours"])
    per_image = (steps * step + median(seconds["last decode"])) / batch
    memory, unit = row["memory"], "device_mb" if row["device"] != "cpu" else "process_mb"
    found = {
        **{name: row[name] for name in ("prior", "solver", "size", "batch", "precision", "device")},
        "seconds a step": step,
        "bound": median(bounds),
        "images an hour": 3600 / per_image,
        "steps": steps,
        "seconds an image": per_image,
        **memory["ours"],
        **_time_ratios(seconds, batch, ""),
    }
    if row["device"] == "cpu":  # steadier where other programs run too
        found |= _time_ratios(row["processor_seconds"], batch, " (processor time)")
    if "published" in seconds:
        found["memory over ours"] = memory["published"][unit] / memory["ours"][unit]
    return found


def _bounds(seconds: Mapping[str, Sequence[float]]) -> list[float]:
    """The sum of the parts of a step, in each turn."""
    parts = [seconds[name] for name in BOUND if name in seconds]
    return [sum(turn) for turn in zip(*parts, strict=True)]


def _time_ratios(seconds: Mapping[str, Sequence[float]], batch: int, what: str) -> dict[str, float]:
    suffix = _ratios(seconds["perturbed suffix"], seconds["whole perturbed pass"])
    found = {
        f"over bound{what}": median(_ratios(seconds["ours"], _bounds(seconds))),
        f"suffix over whole pass{what}": median(suffix),
    }
    if "published" in seconds:
        found[f"published over ours{what}"] = median(_ratios(seconds["published"], seconds["ours"])) * batch
    return found


def _ratios(a: Sequence[float], b: Sequence[float]) -> list[float]:
    return [x / y for x, y in zip(a, b, strict=True)]


def table(found: Sequence[Mapping[str, Any]]) -> str:
    """A line for each case and number of steps."""
    names = ("prior", "solver", "size", "batch", "precision", "seconds a step", "bound", "images an hour", "steps",
             "device_mb", "process_mb", "over bound", "over bound (processor time)", "published over ours",
             "published over ours (processor time)", "memory over ours")  # fmt: skip
    return _aligned([HEADS, *(tuple(_text(row.get(name)) for name in names) for row in found)])


def sampling_summary(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The figures of each guidance: iterations a second, its time over that of no guidance, peak memory."""
    found, seconds, used = [], row["seconds"], row["processor_seconds"]
    for name in seconds:
        line = {key: row[key] for key in ("prior", "size", "batch", "precision", "device")}
        line |= {"guidance": name, "iterations a second": 1 / median(seconds[name]), **row["memory"][name]}
        if "none" in seconds:
            line["time over none"] = median(_ratios(seconds[name], seconds["none"]))
            if row["device"] == "cpu":
                line["time over none (processor time)"] = median(_ratios(used[name], used["none"]))
        found.append(line)
    return found


def sampling_table(found: Sequence[Mapping[str, Any]]) -> str:
    """A line for each case and guidance."""
    names = ("prior", "size", "batch", "precision", "guidance", "iterations a second", "time over none",
             "time over none (processor time)", "device_mb", "process_mb")  # fmt: skip
    return _aligned([SAMPLING_HEADS, *(tuple(_text(row.get(name)) for name in names) for row in found)])


def curve(found: Sequence[Mapping[str, Any]]) -> str:
    """Seconds an image over size, batch and steps, a line for each prior and precision; empty for a single case."""
    lines: dict[str, list[str]] = {}
    for row in found:
        place = f"{row['size']} px, batch {row['batch']}, {row['steps']} steps"
        lines.setdefault(f"{row['prior']} {row['precision']}", []).append(f"{place}: {row['seconds an image']:.3g} s")
    return "\n".join(f"{name}: {'; '.join(points)}" for name, points in lines.items() if len(points) > 1)


def _text(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.3g}" if isinstance(value, float) and value < 1000 else f"{value}".partition(".")[0]


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(f"{text:>{w}}" for text, w in zip(row, widths, strict=True)) for row in rows)
