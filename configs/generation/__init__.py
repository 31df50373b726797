"""Sampling: the paper's settings, one file a table or figure, and the defaults of each prior."""
