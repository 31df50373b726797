"""One case of the benchmark, as it is handed to a process of its own."""

from __future__ import annotations

from dataclasses import dataclass

from pag_inverse.settings.files import EMBEDDED_PRIORS


@dataclass(frozen=True)
class Architecture:
    """A published network's size in pixels, its solver, and the layers that the tables perturb."""

    size: int
    solver: str
    layers: tuple[str, ...]


ARCHITECTURES = {
    "ffhq-architecture": Architecture(256, "dps", ("input_blocks.9.1",)),
    "imagenet-architecture": Architecture(256, "dps", ("middle_block.1", "output_blocks.2.1")),
    "sd15-architecture": Architecture(512, "psld", ("input_blocks.8.1.transformer_blocks.0.attn1",)),
}
EMBEDDED_SOLVERS = {prior: solver for solver, prior in EMBEDDED_PRIORS.items()}


@dataclass(frozen=True)
class Case:
    """What is measured, where, and how often."""

    prior: str
    solver: str
    task: str
    size: int
    batch: int
    precision: str
    device: str
    threads: int | None
    repeats: int
    compile: bool
    channels_last: bool
    low_memory: bool
    reference: bool

    def title(self) -> str:
        flags = [name for name in ("compile", "channels_last", "low_memory") if getattr(self, name)]
        return " ".join(
            [self.prior, self.solver, f"{self.size} px", f"batch {self.batch}", self.precision, self.device, *flags]
        )
