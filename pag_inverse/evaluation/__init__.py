"""Data sets at scale: plans of runs, restoring them on any number of processes, and scoring what was saved."""
