"""The cost of a solver step: its time and memory beside the published way and beside its parts alone."""
