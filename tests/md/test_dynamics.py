"""Dynamics with ASE's EMT potential: conservation, ensembles, exact restart, kills, explosions, bad settings."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms, units
from ase.calculators.calculator import all_changes
from ase.calculators.emt import EMT
from ase.calculators.harmonic import HarmonicCalculator, HarmonicForceField
from ase.constraints import FixAtoms
from ase.io import read, write

from nequip_fast.errors import InputError
from nequip_fast.md import MDConfig, SimulationExploded, read_thermo, read_trajectory, simulate
from nequip_fast.md.integrators import build_integrator, degrees_of_freedom, thermal_velocities

ENSEMBLES = ["nve", "nvt-langevin", "nvt-bussi"]


class FreshEMT(EMT):
    """EMT whose forces depend on the positions alone; ASE's keeps a neighbour list, whose order rounds differently."""

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, all_changes)


def run(config: MDConfig):
    return simulate(config, calculator=FreshEMT(), progress=False)


def config_for(structure: str, output: Path, **settings) -> MDConfig:
    return MDConfig(model="", structure=structure, output=str(output), **{"steps": 40, "interval": 8} | settings)


def state(directory: Path) -> tuple[np.ndarray, np.ndarray, str]:
    last = read_trajectory(directory / "trajectory.traj")[-1]
    return last.positions, last.get_momenta(), (directory / "thermo.csv").read_text()


def test_nve_conserves_energy_and_better_with_a_shorter_step(crystal: str, tmp_path: Path) -> None:
    scatter = []
    for timestep in (4.0, 2.0):
        result = run(
            config_for(
                crystal,
                tmp_path / str(timestep),
                ensemble="nve",
                timestep_fs=timestep,
                steps=None,
                time_ps=0.4,
                interval=2,
            )
        )
        assert result.time_ps == pytest.approx(0.4)
        assert result.drift is not None
        assert result.drift.conserved
        scatter.append(result.drift.rms_meV_atom)
    assert scatter[0] / scatter[1] == pytest.approx(4.0, rel=0.3)  # Verlet is of second order


def test_nve_agrees_with_ase(crystal: str, tmp_path: Path) -> None:
    from ase.md.verlet import VelocityVerlet

    run(config_for(crystal, tmp_path / "ours", ensemble="nve", timestep_fs=2.0))
    frames = read_trajectory(tmp_path / "ours" / "trajectory.traj")
    atoms = frames[0].copy()
    atoms.calc = EMT()
    VelocityVerlet(atoms, 2.0 * units.fs).run(40)
    np.testing.assert_allclose(frames[-1].positions, atoms.positions, atol=1e-12)
    np.testing.assert_allclose(frames[-1].get_momenta(), atoms.get_momenta(), atol=1e-12)


@pytest.mark.parametrize("ensemble", ENSEMBLES)
def test_resumed_run_is_the_uninterrupted_one_bit_for_bit(crystal: str, tmp_path: Path, ensemble: str) -> None:
    whole = config_for(crystal, tmp_path / "whole", ensemble=ensemble)
    parts = replace(whole, output=str(tmp_path / "parts"), steps=24)
    run(whole)
    run(parts)
    result = run(replace(parts, steps=40, resume=True))
    assert result.new_steps == 16
    for a, b in zip(state(tmp_path / "whole"), state(tmp_path / "parts"), strict=True):
        assert np.array_equal(a, b)
    assert len(read_trajectory(result.trajectory)) == 6
    again = run(replace(parts, steps=40, resume=True))  # nothing left to do
    assert (again.new_steps, again.num_steps) == (0, 40)
    assert again.temperature_K == result.temperature_K


def test_killed_run_leaves_a_readable_trajectory_and_resumes_exactly(crystal: str, tmp_path: Path) -> None:
    whole = config_for(crystal, tmp_path / "whole", steps=120, interval=1)
    run(whole)
    killed = replace(whole, output=str(tmp_path / "killed"), resume=True)
    program = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        f"from test_dynamics import *; simulate({killed!r}, calculator=FreshEMT(), progress=False)"
    )
    trajectory = tmp_path / "killed" / "trajectory.traj"
    for wanted in (30, 70):
        process = subprocess.Popen([sys.executable, "-c", program])
        deadline = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline:
            if trajectory.exists() and trajectory.stat().st_size > 0 and len(read_trajectory(trajectory)) >= wanted:
                break
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        frames = read_trajectory(trajectory)
        assert [frame.info["step"] for frame in frames] == list(range(len(frames)))
        assert len(read_thermo(tmp_path / "killed" / "thermo.csv")["step"]) - len(frames) in (0, 1)
    run(killed)
    for a, b in zip(state(tmp_path / "whole"), state(tmp_path / "killed"), strict=True):
        assert np.array_equal(a, b)


def test_frame_cut_off_in_the_middle_is_not_seen(crystal: str, tmp_path: Path) -> None:
    config = config_for(crystal, tmp_path / "md")
    run(config)
    trajectory = tmp_path / "md" / "trajectory.traj"
    with open(trajectory, "ab") as file:
        file.write(b"\x07" * 333)
    with open(tmp_path / "md" / "thermo.csv", "a") as file:
        file.write("48,0.024,31")
    assert len(read_trajectory(trajectory)) == 6
    run(replace(config, steps=56, resume=True))
    run(replace(config, steps=56, output=str(tmp_path / "whole")))
    for a, b in zip(state(tmp_path / "whole"), state(tmp_path / "md"), strict=True):
        assert np.array_equal(a, b)


def test_ctrl_c_stops_between_steps_and_resumes_exactly(crystal: str, tmp_path: Path) -> None:
    class Interrupting(FreshEMT):
        def calculate(self, *args, **kwargs):
            super().calculate(*args, **kwargs)
            self.calls = getattr(self, "calls", 0) + 1
            if self.calls == 21:
                os.kill(os.getpid(), signal.SIGINT)

    config = config_for(crystal, tmp_path / "md")
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        simulate(config, calculator=Interrupting(), progress=False)
    assert signal.getsignal(signal.SIGINT) is before
    assert read_trajectory(tmp_path / "md" / "trajectory.traj")[-1].info["step"] == 16
    settings = tmp_path / "md" / "md.json"
    settings.write_text(settings.read_text().replace("Interrupting", "FreshEMT"))
    run(replace(config, resume=True))
    run(replace(config, output=str(tmp_path / "whole")))
    for a, b in zip(state(tmp_path / "whole"), state(tmp_path / "md"), strict=True):
        assert np.array_equal(a, b)


def harmonic_gas(num_atoms: int) -> Atoms:
    atoms = Atoms(["Ar"] * num_atoms, np.arange(3 * num_atoms).reshape(-1, 3) * 4.0)
    atoms.symbols[0] = "He"
    stiffness = np.diag(np.tile([0.5, 1.0, 2.0], num_atoms))
    field = HarmonicForceField(ref_atoms=atoms, hessian_x=stiffness, ref_energy=0.0)
    atoms.calc = HarmonicCalculator(field)
    return atoms


def test_langevin_samples_the_canonical_ensemble() -> None:
    atoms = harmonic_gas(20)
    config = MDConfig(model="", structure="", ensemble="nvt-langevin", timestep_fs=5.0, steps=0, friction_per_ps=20.0)
    rng = np.random.default_rng(0)
    thermal_velocities(atoms, config, rng)
    integrator = build_integrator(config, degrees_of_freedom(atoms, config), rng)
    start = atoms.get_positions()
    kinetic, potential = [], []
    for step in range(3000):
        integrator.step(atoms)
        if step > 200:
            kinetic.append(atoms.get_kinetic_energy())
            potential.append(0.5 * np.sum([0.5, 1.0, 2.0] * (atoms.positions - start) ** 2))
    thermal = 0.5 * 60 * units.kB * 300
    assert np.mean(kinetic) == pytest.approx(thermal, rel=0.04)
    assert np.mean(potential) == pytest.approx(thermal, rel=0.05)
    assert np.std(kinetic) == pytest.approx(thermal * np.sqrt(2 / 60), rel=0.2)


def test_bussi_gives_the_canonical_kinetic_energy_distribution() -> None:
    atoms = Atoms(["Ar"] * 5, np.arange(15).reshape(-1, 3) * 4.0, cell=[50] * 3, pbc=True)
    field = HarmonicForceField(ref_atoms=atoms, hessian_x=np.zeros((15, 15)), ref_energy=0.0)
    atoms.calc = HarmonicCalculator(field)  # free particles: the thermostat alone decides
    config = MDConfig(model="", structure="", ensemble="nvt-bussi", timestep_fs=1.0, steps=0, relaxation_fs=5.0)
    rng = np.random.default_rng(1)
    thermal_velocities(atoms, config, rng)
    dof = degrees_of_freedom(atoms, config)
    assert dof == 12
    integrator = build_integrator(config, dof, rng)
    kinetic = []
    for _ in range(6000):
        integrator.step(atoms)
        kinetic.append(atoms.get_kinetic_energy())
    thermal = 0.5 * dof * units.kB * 300
    assert np.mean(kinetic) == pytest.approx(thermal, rel=0.05)
    assert np.std(kinetic) == pytest.approx(thermal * np.sqrt(2 / dof), rel=0.12)
    np.testing.assert_allclose(atoms.get_momenta().sum(axis=0), 0, atol=1e-9)


@pytest.mark.parametrize(
    ("atoms", "ensemble", "dof"),
    [
        (Atoms("H"), "nve", 3),
        (Atoms("H2", [[0, 0, 0], [0, 0, 0.74]]), "nve", 1),
        (Atoms("H2O", [[0, 0, 0], [0, 0, 1], [0, 1, 0]]), "nve", 3),
        (Atoms("H2O", [[0, 0, 0], [0, 0, 1], [0, 1, 0]]), "nvt-langevin", 9),
        (Atoms("H2O", [[0, 0, 0], [0, 0, 1], [0, 1, 0]], cell=[9] * 3, pbc=True), "nvt-bussi", 6),
        (Atoms("H2O", [[0, 0, 0], [0, 0, 1], [0, 1, 0]], constraint=FixAtoms([0])), "nve", 6),
    ],
)
def test_thermal_velocities_have_the_temperature_and_no_conserved_motion(atoms: Atoms, ensemble: str, dof: int) -> None:
    config = MDConfig(model="", structure="", ensemble=ensemble, steps=0)
    thermal_velocities(atoms, config, np.random.default_rng(0))
    assert degrees_of_freedom(atoms, config) == dof
    assert 2 * atoms.get_kinetic_energy() / (dof * units.kB) == pytest.approx(300)
    if ensemble == "nve" and len(atoms) > 1 and not atoms.constraints:
        np.testing.assert_allclose(atoms.get_momenta().sum(axis=0), 0, atol=1e-12)
        np.testing.assert_allclose(atoms.get_angular_momentum(), 0, atol=1e-12)


def test_motion_as_a_whole_counts_when_the_structure_brings_it() -> None:
    config = MDConfig(model="", structure="", ensemble="nve", steps=0)
    atoms = Atoms("H2O", [[0, 0, 0], [0, 0, 1], [0, 1, 0]])
    thermal_velocities(atoms, config, np.random.default_rng(0))
    flying = atoms.copy()
    flying.set_velocities(np.add(flying.get_velocities(), [0.01, 0, 0]))
    spinning = atoms.copy()
    arms = spinning.positions - spinning.get_center_of_mass()
    spinning.set_velocities(spinning.get_velocities() + np.cross([0, 0, 0.01], arms))
    assert [degrees_of_freedom(a, config) for a in (atoms, flying, spinning)] == [3, 6, 6]


def test_fixed_atoms_stay(crystal: str, tmp_path: Path) -> None:
    atoms = read(crystal)
    atoms.set_constraint(FixAtoms([0, 3]))
    write(tmp_path / "fixed.traj", atoms)
    for ensemble in ENSEMBLES:
        run(config_for(str(tmp_path / "fixed.traj"), tmp_path / ensemble, ensemble=ensemble))
        last = read_trajectory(tmp_path / ensemble / "trajectory.traj")[-1]
        np.testing.assert_array_equal(last.positions[[0, 3]], atoms.positions[[0, 3]])
        assert not np.allclose(last.positions[1], atoms.positions[1], atol=1e-4)


def test_velocities_of_the_structure_are_taken_exactly(crystal: str, tmp_path: Path) -> None:
    run(config_for(crystal, tmp_path / "first"))
    first = str(tmp_path / "first" / "trajectory.traj")
    run(config_for(first, tmp_path / "second", velocities="structure", ensemble="nve"))
    end, start = read_trajectory(first)[-1], read_trajectory(tmp_path / "second" / "trajectory.traj")[0]
    np.testing.assert_array_equal(start.positions, end.positions)
    np.testing.assert_array_equal(start.get_momenta(), end.get_momenta())
    with pytest.raises(InputError, match="no velocities"):
        run(config_for(crystal, tmp_path / "third", velocities="structure"))


def test_explosion_stops_with_one_sentence_and_keeps_good_frames(crystal: str, tmp_path: Path) -> None:
    config = config_for(crystal, tmp_path / "md", ensemble="nve", timestep_fs=60.0, steps=2000, interval=1)
    with pytest.raises(SimulationExploded, match=r"exploded at step \d+ .*shorter timestep_fs"):
        run(config)
    frames = read_trajectory(tmp_path / "md" / "trajectory.traj")
    assert len(frames) >= 1
    assert all(np.isfinite(frame.positions).all() and np.abs(frame.get_forces()).max() < 500 for frame in frames)


def test_forces_that_are_not_numbers_count_as_an_explosion(crystal: str, tmp_path: Path) -> None:
    class Broken(FreshEMT):
        def calculate(self, *args, **kwargs):
            super().calculate(*args, **kwargs)
            self.results["forces"] = self.results["forces"].copy()
            self.results["forces"][2, 1] = np.nan

    with pytest.raises(SimulationExploded, match=r"atom 2 \(Cu\) is nan eV/Å before the first step"):
        simulate(config_for(crystal, tmp_path / "md"), calculator=Broken(), progress=False)
    assert not (tmp_path / "md" / "trajectory.traj").exists()


def test_an_earlier_run_is_neither_overwritten_nor_continued_by_accident(crystal: str, tmp_path: Path) -> None:
    config = config_for(crystal, tmp_path / "md")
    run(config)
    with pytest.raises(InputError, match="exists already"):
        run(config)
    with pytest.raises(InputError, match=r"temperature_K = 300.0, not 310.0"):
        run(replace(config, temperature_K=310.0, resume=True))
    assert run(replace(config, temperature_K=310.0, overwrite=True)).new_steps == 40
    (tmp_path / "md" / "md.json").write_text("{")
    with pytest.raises(InputError, match="missing or damaged"):
        run(replace(config, resume=True))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ensemble": "nvt-langvin"}, "did you mean 'nvt-langevin'"),
        ({"velocities": "thermall"}, "did you mean 'thermal'"),
        ({"steps": 10, "time_ps": 1.0}, "either steps or time_ps"),
        ({"steps": None}, "either steps or time_ps"),
        ({"timestep_fs": 0.0}, "timestep_fs is 0.0; it must be a positive number"),
        ({"interval": 0}, "interval is 0"),
        ({"temperature_K": -1.0}, "temperature_K is -1.0; it must be a non-negative number"),
        ({"temperature_K": 0.0}, "no thermostat can hold"),
        ({"friction_per_ps": float("nan")}, "friction_per_ps is nan"),
    ],
)
def test_bad_settings(settings: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        MDConfig(**{"model": "m", "structure": "s", "steps": 10} | settings)


def test_length_in_time_is_rounded_to_whole_steps() -> None:
    assert MDConfig("m", "s", time_ps=1.0, timestep_fs=0.3).num_steps == 3333


def test_bad_files(crystal: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such structure file"):
        run(config_for(str(tmp_path / "none.xyz"), tmp_path / "md"))
    with pytest.raises(InputError, match="has 1 structures, so none of index 7"):
        run(config_for(crystal, tmp_path / "md", index=7))
    (tmp_path / "noise.xyz").write_text("what\n")
    with pytest.raises(InputError, match="not a structure file"):
        run(config_for(str(tmp_path / "noise.xyz"), tmp_path / "md"))
    with pytest.raises(InputError, match="no such model file"):
        simulate(config_for(crystal, tmp_path / "md"), progress=False)
    (tmp_path / "noise.traj").write_text("what\n")
    with pytest.raises(InputError, match="not a readable ASE trajectory"):
        read_trajectory(tmp_path / "noise.traj")


def test_zero_steps_and_the_last_incomplete_interval(crystal: str, tmp_path: Path) -> None:
    assert run(config_for(crystal, tmp_path / "zero", steps=0)).num_steps == 0
    run(config_for(crystal, tmp_path / "odd", steps=10, interval=4))
    assert read_thermo(tmp_path / "odd" / "thermo.csv")["step"].tolist() == [0, 4, 8, 10]
