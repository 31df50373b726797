"""Hold the samples of solvers against known posteriors; `--set KEY=prior` gives an option each prior's variance."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pag_inverse.cli.arguments import Parser, SetOption, path, run
from pag_inverse.settings import validated


def parser() -> Parser:
    """The flags of calibrate."""
    p = Parser("calibrate", __doc__)
    p.add_argument("--solvers", nargs="+", default=(), help="by name; by default all")
    options = "options of the solvers, as in solve; KEY=prior is the variance of each prior"
    p.add_argument("--set", dest="options", default={}, action=SetOption, nargs="+", metavar="KEY=VALUE", help=options)
    p.add_argument("--samples", type=int, default=128, help="of each posterior")
    p.add_argument("--steps", type=int, default=250, help="1 to 1000")
    p.add_argument("--output", type=path, default=Path("results") / "calibration.json", help="the JSON")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, then print the table of all that the JSON holds."""
    from pag_inverse.experiments.calibration import CalibrationRequest, calibrate

    return run("calibrate", parser(), argv, lambda args: calibrate(validated(CalibrationRequest, vars(args))))
