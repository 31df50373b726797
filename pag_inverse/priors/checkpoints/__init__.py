"""Checkpoints: one format a file, each read into a prior or its networks. A fault is a ValueError of one line."""
