"""Pre-trained priors: pixel (OpenAI-ADM and small U-Nets) and latent (Stable Diffusion and small ones)."""

from pag_inverse.priors.base import Prediction, Prior
from pag_inverse.priors.latent import LatentPrior
from pag_inverse.priors.load import load_prior
from pag_inverse.priors.pixel import PixelPrior

__all__ = ["LatentPrior", "PixelPrior", "Prediction", "Prior", "load_prior"]
