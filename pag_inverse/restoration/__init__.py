"""From a measurement to a restoration: the loop, one call for a picture, and the run that a command makes."""

from pag_inverse.restoration.loop import Callback, ChainResult, run_chain, solve
from pag_inverse.restoration.output import RestorationOutput
from pag_inverse.restoration.restore import restore

__all__ = ["Callback", "ChainResult", "RestorationOutput", "restore", "run_chain", "solve"]
