"""Sampling without a measurement: Algorithm 1 of the paper, one call for pictures, and the run of a command."""

from pag_inverse.generation.chain import SampledBatch, run_sampler
from pag_inverse.generation.sample import SampleOutput, sample
from pag_inverse.generation.samplers import DDIM, DDPM, SAMPLERS, Sampler, SampleStep

__all__ = [
    "DDIM",
    "DDPM",
    "SAMPLERS",
    "SampleOutput",
    "SampleStep",
    "SampledBatch",
    "Sampler",
    "run_sampler",
    "sample",
]
