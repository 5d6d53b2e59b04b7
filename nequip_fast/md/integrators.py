"""One step of molecular dynamics on an ``ase.Atoms``, in three ensembles.

The whole state lives in ``atoms`` (positions, momenta) and in the random generator, so a run that stores both
goes on exactly where it stopped. Units are ASE's: eV, Å, and the time unit Å·√(u/eV).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from nequip_fast.errors import require
from nequip_fast.md.config import MDConfig

if TYPE_CHECKING:
    from ase import Atoms

FloatArray = NDArray[np.float64]


class Integrator(Protocol):
    """Advances ``atoms`` by one time step."""

    def step(self, atoms: Atoms) -> None:
        """Advance positions and momenta in place; one force evaluation."""


class VelocityVerlet:
    """NVE: half kick, drift, half kick."""

    def __init__(self, timestep: float) -> None:
        self.timestep = timestep

    def step(self, atoms: Atoms) -> None:
        _kick(atoms, 0.5 * self.timestep)
        _drift(atoms, self.timestep)
        _kick(atoms, 0.5 * self.timestep)


class Langevin:
    """NVT in the BAOAB splitting (Leimkuhler and Matthews, Appl. Math. Res. Express 2013, 34).

    Args:
        friction: per time unit.
        temperature: k_B T in eV.
    """

    def __init__(self, timestep: float, temperature: float, friction: float, rng: np.random.Generator) -> None:
        self.timestep, self.temperature, self.rng = timestep, temperature, rng
        self.decay = float(np.exp(-friction * timestep))

    def step(self, atoms: Atoms) -> None:
        _kick(atoms, 0.5 * self.timestep)
        _drift(atoms, 0.5 * self.timestep)
        thermal = np.sqrt((1.0 - self.decay**2) * self.temperature * atoms.get_masses())[:, None]
        atoms.set_momenta(self.decay * atoms.get_momenta() + thermal * self.rng.standard_normal((len(atoms), 3)))
        _drift(atoms, 0.5 * self.timestep)
        _kick(atoms, 0.5 * self.timestep)


class Bussi:
    """NVT by stochastic velocity rescaling (Bussi, Donadio and Parrinello, J. Chem. Phys. 126, 014101 (2007), A7).

    Args:
        temperature: k_B T in eV.
        relaxation: time constant, in time units.
        dof: degrees of freedom that carry kinetic energy.
    """

    def __init__(
        self, timestep: float, temperature: float, relaxation: float, dof: int, rng: np.random.Generator
    ) -> None:
        self.verlet = VelocityVerlet(timestep)
        self.temperature, self.dof, self.rng = temperature, dof, rng
        self.decay = float(np.exp(-timestep / relaxation))

    def step(self, atoms: Atoms) -> None:
        kinetic = atoms.get_kinetic_energy()
        if kinetic > 0.0:
            atoms.set_momenta(atoms.get_momenta() * self._scale(kinetic))
        self.verlet.step(atoms)

    def _scale(self, kinetic: float) -> float:
        share = (1.0 - self.decay) * 0.5 * self.temperature / kinetic  # (1-c) K_target / (dof K)
        normal = self.rng.standard_normal()
        others = 2.0 * self.rng.standard_gamma(0.5 * (self.dof - 1)) if self.dof > 1 else 0.0
        cross = 2.0 * normal * np.sqrt(self.decay * share)
        scale = np.sqrt(self.decay + share * (normal**2 + others) + cross)
        flips = normal + np.sqrt(self.decay / share) < 0.0  # sign of A8: matters for few degrees of freedom
        return float(-scale if flips else scale)


def build_integrator(config: MDConfig, dof: int, rng: np.random.Generator) -> Integrator:
    """The integrator ``config`` asks for."""
    units = require("ase.units", "md")
    timestep, temperature = config.timestep_fs * units.fs, config.temperature_K * units.kB
    if config.ensemble == "nve":
        return VelocityVerlet(timestep)
    if config.ensemble == "nvt-langevin":
        return Langevin(timestep, temperature, config.friction_per_ps / (1e3 * units.fs), rng)
    return Bussi(timestep, temperature, config.relaxation_fs * units.fs, dof, rng)


def conserves_momentum(atoms: Atoms, config: MDConfig) -> bool:
    """Whether the centre of mass keeps its velocity: no constraints and no Langevin bath, more than one atom."""
    return config.ensemble != "nvt-langevin" and not atoms.constraints and len(atoms) > 1


def degrees_of_freedom(atoms: Atoms, config: MDConfig) -> int:
    """Degrees of freedom that share the kinetic energy: without those of motion that is conserved and absent."""
    dof = int(atoms.get_number_of_degrees_of_freedom())
    if conserves_momentum(atoms, config):
        negligible = 1e-6 * atoms.get_kinetic_energy()
        momentum, masses = atoms.get_momenta().sum(axis=0), atoms.get_masses()
        if 0.5 * momentum @ momentum / masses.sum() <= negligible:
            dof -= 3
        inertia, angular = _inertia(atoms), atoms.get_angular_momentum()
        if not atoms.pbc.any() and 0.5 * angular @ np.linalg.pinv(inertia, hermitian=True) @ angular <= negligible:
            dof -= int(np.linalg.matrix_rank(inertia, hermitian=True))
    return max(dof, 1)


def thermal_velocities(atoms: Atoms, config: MDConfig, rng: np.random.Generator) -> None:
    """Maxwell–Boltzmann momenta, scaled to ``config.temperature_K`` exactly.

    Where the ensemble conserves them, the motion of the centre of mass and (without periodicity) the rotation are
    taken out first.
    """
    units = require("ase.units", "md")
    masses = atoms.get_masses()[:, None]
    atoms.set_momenta(rng.standard_normal((len(atoms), 3)) * np.sqrt(masses))
    if conserves_momentum(atoms, config):
        momenta = atoms.get_momenta()
        velocities = momenta / masses - momenta.sum(axis=0) / masses.sum()
        if not atoms.pbc.any():
            arms = atoms.positions - atoms.get_center_of_mass()
            angular = np.cross(arms, velocities * masses).sum(axis=0)
            velocities -= np.cross(np.linalg.pinv(_inertia(atoms), hermitian=True) @ angular, arms)
        atoms.set_momenta(velocities * masses)
    target = 0.5 * degrees_of_freedom(atoms, config) * units.kB * config.temperature_K
    kinetic = atoms.get_kinetic_energy()
    if kinetic > 0.0:
        atoms.set_momenta(atoms.get_momenta() * np.sqrt(target / kinetic))


def _kick(atoms: Atoms, time: float) -> None:
    atoms.set_momenta(atoms.get_momenta() + time * atoms.get_forces(md=True))


def _drift(atoms: Atoms, time: float) -> None:
    masses = atoms.get_masses()[:, None]
    before = atoms.get_positions()
    atoms.set_positions(before + time * atoms.get_momenta() / masses)
    if atoms.constraints:  # what the constraints took from the move they take from the momenta
        atoms.set_momenta((atoms.get_positions() - before) * masses / time, apply_constraint=False)


def _inertia(atoms: Atoms) -> FloatArray:
    """Moment of inertia tensor about the centre of mass, u·Å²."""
    arms = atoms.positions - atoms.get_center_of_mass()
    weighted = atoms.get_masses()[:, None] * arms
    return np.eye(3) * np.einsum("ni,ni->", weighted, arms) - weighted.T @ arms
