"""The settings of a sweep over guidance: sets of layers, scales, perturbations, combinations and solvers."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from pag_inverse.guidance import PERTURBATIONS, make_combination, make_perturbation, spelling
from pag_inverse.priors import Prior
from pag_inverse.settings import check_different

SETS = {"each": 1, "pairs": 2, "triples": 3}  # words for all sets of so many layers


@dataclass(frozen=True)
class Setting:
    """A solver, or the sampler of a generation, under PAG of scale s at `layers`; s = 0 is without PAG.

    `perturbation` and `combination` are spelled with all their options.
    """

    solver: str
    s: float = 0.0
    layers: tuple[str, ...] = ()
    perturbation: str = "identity"
    combination: str = "plain"

    @property
    def guidance(self) -> str:
        """The perturbation and the combination, options that have their own value left out; empty without PAG."""
        if self.s == 0:
            return ""
        names = [_shortest(self.perturbation), _shortest(self.combination)]
        return " ".join(name for name in names if name != "plain")

    @property
    def name(self) -> str:
        """The setting in words."""
        return f"{self.solver}, {self.guidance} at {'+'.join(self.layers)}, s = {self.s:g}" if self.s else self.plain

    @property
    def plain(self) -> str:
        """Its solver without PAG, in words."""
        return f"{self.solver}, no PAG"


def grid(
    solver: str,
    layers: Sequence[tuple[str, ...]],
    scales: Sequence[float],
    perturbations: Sequence[str],
    combinations: Sequence[str],
) -> list[Setting]:
    """The solver without PAG, and under every combination of the lists; each spelling is checked."""
    spelled = [spelling(make_perturbation(name)) for name in perturbations]
    combined = [spelling(make_combination(name)) for name in combinations]
    for name, values in (("--perturbations", spelled), ("--combinations", combined), ("--scales", scales)):
        check_different(name, values)
    product = itertools.product(spelled, combined, layers, sorted(s for s in scales if s > 0))
    return [Setting(solver), *(Setting(solver, s, chosen, p, c) for p, c, chosen, s in product)]


def layer_sets(words: Sequence[str], among: Sequence[str], prior: Prior) -> list[tuple[str, ...]]:
    """The sets of layers that `words` stand for, by diffusers' names in the network's order.

    A word is LAYER,... or one of SETS: all sets of one, two or three layers of `among`, by default of the prior.
    An unknown layer, a set that is given twice, too few layers for a word, and `among` without a word of SETS are
    ValueErrors.
    """
    there = [layer.diffusers for layer in prior.layers()]
    chosen = [layer for layer in there if layer in prior.resolve_layers(among)] if among else there
    if among and not set(words) & set(SETS):
        raise ValueError(f"--among does nothing without {', '.join(SETS)} in --layers")
    found: list[tuple[str, ...]] = []
    for word in words:
        if word in SETS:
            if len(chosen) < SETS[word]:
                raise ValueError(f"--layers {word} need at least {SETS[word]} layers, there are {len(chosen)}")
            found += itertools.combinations(chosen, SETS[word])
        else:
            names = prior.resolve_layers(word.split(","))
            found.append(tuple(layer for layer in there if layer in names))
    check_different("--layers", [",".join(layers) for layers in found])
    return found


def _shortest(spelled: str) -> str:
    """The name alone where all options have their own value."""
    name = spelled.partition(":")[0]
    own = make_perturbation(name) if name in PERTURBATIONS else make_combination(name)
    return name if spelling(own) == spelled else spelled
