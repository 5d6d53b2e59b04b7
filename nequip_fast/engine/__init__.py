"""The inference engine: a trained model compiled for evaluation.

Usage::

    potential = compile(model)  # from a trained model
    potential(atoms).forces  # or potential.calculator() for ASE
    potential.to("cuda")  # the same on a GPU
    potential.save("water.nqf")
    potential = load("water.nqf")
"""

from nequip_fast.engine.compile import compile
from nequip_fast.engine.potential import Potential, Prediction

load = Potential.load

__all__ = ["Potential", "Prediction", "compile", "load"]
