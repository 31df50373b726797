"""Physics of deepinv as operators and problems of this package, and the solvers as a deepinv reconstructor."""

from pag_inverse.adapters.physics import PhysicsOperator
from pag_inverse.adapters.problem import CountsNoise, physics_operator, physics_problem
from pag_inverse.adapters.reconstructor import Reconstructor

__all__ = ["CountsNoise", "PhysicsOperator", "Reconstructor", "physics_operator", "physics_problem"]
