"""Pipelines of diffusers under PAG: ControlNet, inpainting and the x4 upscaler of Stable Diffusion."""

from pag_inverse.pipelines.guided import guided_unet
from pag_inverse.pipelines.load import exact_layers, load_pipeline
from pag_inverse.pipelines.presets import PIPELINES, Preset, preset

__all__ = ["PIPELINES", "Preset", "exact_layers", "guided_unet", "load_pipeline", "preset"]
