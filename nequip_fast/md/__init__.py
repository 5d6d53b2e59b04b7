"""Molecular dynamics with a trained model, and what to read off a trajectory."""

from nequip_fast.md.config import MDConfig
from nequip_fast.md.dynamics import MDResult, SimulationExploded, simulate
from nequip_fast.md.trajectory import read_thermo, read_trajectory

__all__ = ["MDConfig", "MDResult", "SimulationExploded", "read_thermo", "read_trajectory", "simulate"]
