"""Inverse problems with diffusion priors and Perturbed-Attention Guidance."""
