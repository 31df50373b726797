"""The pipelines by name, with the paper's scales."""

from __future__ import annotations

from dataclasses import dataclass

from pag_inverse.settings import check_choice

# The layer of Stable Diffusion in Table 2; the paper names none for these pipelines.
LAYER = "mid_block.attentions.0.transformer_blocks.0.attn1"


@dataclass(frozen=True)
class Preset:
    """A pipeline of diffusers, where its weights are published, and the scale s of PAG that the paper shows.

    `kind` is controlnet, inpaint or upscale. `controlnet` names the weights of the control network.
    """

    kind: str
    pipeline: str
    weights: str
    s: float
    controlnet: str | None = None
    layers: tuple[str, ...] = (LAYER,)


_STABLE_DIFFUSION = "stable-diffusion-v1-5/stable-diffusion-v1-5"
_CONTROLNET = "StableDiffusionControlNetPAGPipeline"
# Ahn et al., 2024, the figures of ControlNet with an empty prompt, of inpainting and of the upscaler (1.0 to 3.0).
PIPELINES = {
    "pose": Preset("controlnet", _CONTROLNET, _STABLE_DIFFUSION, 2.5, "lllyasviel/control_v11p_sd15_openpose"),
    "depth": Preset("controlnet", _CONTROLNET, _STABLE_DIFFUSION, 1.0, "lllyasviel/control_v11f1p_sd15_depth"),
    "inpaint": Preset(
        "inpaint", "StableDiffusionPAGInpaintPipeline", "stable-diffusion-v1-5/stable-diffusion-inpainting", 1.5
    ),
    "upscale": Preset("upscale", "StableDiffusionUpscalePipeline", "stabilityai/stable-diffusion-x4-upscaler", 1.0),
}


def preset(name: str) -> Preset:
    """The preset of a name; ValueError lists them."""
    return PIPELINES[check_choice("pipeline", name, tuple(PIPELINES))]
