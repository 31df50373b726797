"""Experiments on a few pictures: search of step sizes, ablation of options, comparison with classical methods."""
