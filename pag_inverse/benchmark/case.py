"""One case of the benchmark, as it is handed to a process of its own."""

from __future__ import annotations

from dataclasses import dataclass

# Published networks that are measured with random weights, and the priors whose pictures, rows and betas they have.
ARCHITECTURES = {
    "ffhq-architecture": "ffhq",
    "imagenet-architecture": "imagenet",
    "sd15-architecture": "sd15",
}
EMBEDDED = ("pixel", "latent")
GUIDANCES = ("none", "cfg", "pag", "cfg_pag", "seg")  # of sampling, the paper's Table 6 and SEG
DATASET = "ffhq"  # whose rows a prior takes that has none of its own


@dataclass(frozen=True)
class Case:
    """What is measured, where, and how often. `size` is the side of the picture in pixels."""

    prior: str
    solver: str
    dataset: str
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
        """One line that tells the case from others."""
        flags = [name for name in ("compile", "channels_last", "low_memory") if getattr(self, name)]
        return " ".join(
            [self.prior, self.solver, f"{self.size} px", f"batch {self.batch}", self.precision, self.device, *flags]
        )
