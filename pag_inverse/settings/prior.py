"""The settings of a prior: `configs/priors`, one file each."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from operators.validation import Count, NonNegative, Unit, settings
from pag_inverse.settings.reader import FileModel, open_settings, read_model, shipped_names

Family = Literal["adm", "pixel", "latent", "stable_diffusion"]
Kind = Literal["pixel", "latent"]  # what the state of a prior is: the image, or its latent
PRIORS = shipped_names("priors")


@settings
class BetaConfig:
    """The 1000 betas a prior was trained with: `linear`, or `scaled_linear` (linear in the square root)."""

    schedule: Literal["linear", "scaled_linear"]
    start: Unit
    end: Unit


@settings
class PriorConfig:
    """A prior: its kind, the dataset whose rows go with it, and its weights.

    `image_size` is in pixels, `size_mb` in megabytes. `files` are the names of its weights: files, folders of
    Stable Diffusion's components, or folders inside `pag_inverse.priors` for the embedded ones. `hub_repo` is None
    where no hub holds them. `head_channels` is the width of an ADM's attention heads, which its weights do not tell.
    """

    name: str
    family: Family
    image_size: Count
    dataset: str | None
    files: tuple[str, ...]
    hub_repo: str | None
    hub_file: str | None
    size_mb: NonNegative
    betas: BetaConfig
    head_channels: Count | None
    licence: str
    source: str

    @property
    def embedded(self) -> bool:
        """Whether its weights come with the package."""
        return self.files[0].startswith("embedded/")

    @property
    def kind(self) -> Kind:
        """Whether its state is the image or a latent."""
        return "latent" if self.family in ("latent", "stable_diffusion") else "pixel"


class _Hub(FileModel):
    repo: str = Field(min_length=1)
    file: str | None = None


class _Betas(FileModel):
    schedule: Literal["linear", "scaled_linear"]
    start: Unit
    end: Unit


class _PriorFile(FileModel):
    family: Family
    image_size: Count
    dataset: str | None
    files: list[str] = Field(min_length=1)
    hub: _Hub | None
    size_mb: NonNegative
    betas: _Betas
    head_channels: Count | None = None
    licence: str
    source: str


def load_prior_config(name: str | Path) -> PriorConfig:
    """Read the settings of one of PRIORS, or of a YAML file written like theirs.

    An unknown name and a faulty file are one-line ValueErrors.
    """
    stem, source, values = open_settings("prior", name, PRIORS)
    file = read_model(_PriorFile, values, source)
    return PriorConfig(
        name=stem,
        family=file.family,
        image_size=file.image_size,
        dataset=file.dataset,
        files=tuple(file.files),
        hub_repo=file.hub.repo if file.hub else None,
        hub_file=file.hub.file if file.hub else None,
        size_mb=file.size_mb,
        betas=BetaConfig(file.betas.schedule, file.betas.start, file.betas.end),
        head_channels=file.head_channels,
        licence=file.licence,
        source=file.source,
    )
