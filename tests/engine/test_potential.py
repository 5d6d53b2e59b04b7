"""Potential and its calculator: structures in, files, and a neighbour list that is never stale."""

from __future__ import annotations

import copy
import gc
import pickle

import ase.build
import numpy as np
import pytest
import torch

from nequip_fast.engine import Potential, compile, load
from nequip_fast.errors import InputError
from nequip_fast.integrations.ase import NequIPFastCalculator
from nequip_fast.model import build_model
from tests.model.model_cases import config, crystals, molecules


@pytest.fixture(scope="module")
def model():
    return build_model(config("preset_S")).eval()


@pytest.fixture(scope="module")
def potential(model) -> Potential:
    return compile(model)


def supercell():
    atoms = ase.build.bulk("C", "diamond", a=3.6, cubic=True).repeat(2)
    atoms.symbols[::3] = "O"
    atoms.rattle(0.05, seed=1)
    return atoms


def test_call_batch_and_calculator_agree(model, potential):
    structures = [*molecules(), *crystals(), supercell()]
    for atoms, together in zip(structures, potential.batch(structures), strict=True):
        alone, calculator = potential(atoms), potential.calculator()
        atoms.calc = calculator
        assert together.energy == pytest.approx(alone.energy, rel=1e-12)
        assert atoms.get_potential_energy() == pytest.approx(alone.energy, rel=1e-12)
        np.testing.assert_allclose(atoms.get_forces(), alone.forces, rtol=0, atol=1e-10)
        np.testing.assert_allclose(together.forces, alone.forces, rtol=0, atol=1e-10)
        source = atoms.copy()
        source.calc = NequIPFastCalculator(model)
        np.testing.assert_allclose(alone.forces, source.get_forces(), rtol=0, atol=1e-6)
        if atoms.pbc.all():
            np.testing.assert_allclose(atoms.get_stress(), source.get_stress(), rtol=0, atol=1e-7)
        else:
            assert alone.stress is None


def test_nothing_to_evaluate(potential):
    assert potential.batch([]) == []
    empty = potential(ase.Atoms())
    assert empty.energy == 0
    assert empty.forces.shape == (0, 3)


def test_the_neighbour_list_is_never_stale(potential):
    """Small moves, long ones, atoms wrapped across the boundary, another cell, another periodicity, other elements."""
    atoms, generator = supercell(), np.random.default_rng(3)
    calculator = potential.calculator(skin=0.4)

    def check():
        moved = atoms.copy()
        moved.calc = calculator
        np.testing.assert_allclose(moved.get_forces(), potential(atoms).forces, rtol=0, atol=1e-10)

    check()
    for step in (0.01, 0.05, 0.19, 0.21, 0.6):  # about half the skin, and beyond
        for _ in range(4):
            atoms.positions += step * generator.normal(size=atoms.positions.shape) / 3**0.5
            check()
        atoms.positions[0, 0] += 0.2  # one atom alone, exactly half the skin
        check()
    atoms.positions[3] += 2 * atoms.cell[0] - atoms.cell[2]
    check()
    atoms.wrap()
    check()
    atoms.set_cell(1.01 * atoms.cell.array, scale_atoms=True)
    check()
    atoms.pbc = [True, False, True]
    check()
    atoms.symbols[:5] = "H"
    check()
    del atoms[7]
    check()


def test_it_is_smooth_through_the_cutoff(potential):
    """No jump in energy or force when a pair crosses it."""
    r = np.linspace(-1e-4, 1e-4, 21) + potential.r_max
    pairs = [ase.Atoms("CO", positions=[[0, 0, 0], [length, 0, 0]]) for length in r]
    predictions = potential.batch(pairs)
    energies = np.array([p.energy for p in predictions])
    forces = np.array([p.forces[1, 0] for p in predictions])
    assert np.ptp(energies) < 1e-12
    assert np.abs(forces).max() < 1e-9


def test_atoms_almost_in_one_place(potential):
    """Finite down to the shortest distances; an error at the same place."""
    for length in (0.5, 0.1, 1e-2):
        found = potential(ase.Atoms("CO", positions=[[0, 0, 0], [length, 0, 0]]))
        assert np.isfinite(found.forces).all()
    for length in (0, 5e-4):
        together = ase.Atoms("CO", positions=[[0, 0, 0], [length, 0, 0]])
        together.calc = potential.calculator()
        for evaluate in (potential, ase.Atoms.get_forces):
            with pytest.raises(InputError, match="same place"):
                evaluate(together)


def test_symmetries(potential):
    """Rotated, translated, permuted and wrapped copies give the same to rounding."""
    atoms = supercell()
    reference = potential(atoms)
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    turned = atoms.copy()
    turned.set_cell(atoms.cell.array @ rotation.T)
    turned.positions = atoms.positions @ rotation.T
    shifted = atoms.copy()
    shifted.positions += [0.3, -7.0, 1.1]
    shifted.wrap()
    order = np.random.default_rng(1).permutation(len(atoms))
    for changed, forces in (
        (turned, reference.forces @ rotation.T),
        (shifted, reference.forces),
        (atoms[order], reference.forces[order]),
    ):
        found = potential(changed)
        assert found.energy == pytest.approx(reference.energy, rel=1e-12)
        np.testing.assert_allclose(found.forces, forces, rtol=0, atol=1e-9)


def test_copies_and_pickles(potential):
    """They outlive the original."""
    original = compile(build_model(config("no_parity")), verify=False)
    copies = [copy.deepcopy(original), pickle.loads(pickle.dumps(original))]
    expected = original(crystals()[0]).forces
    del original
    gc.collect()
    for again in copies:
        assert np.array_equal(again(crystals()[0]).forces, expected)


def test_types_that_are_no_elements():
    """compile checks itself all the same."""
    settings = {**config("no_parity"), "type_names": ["O1", "O2", "water"], "per_type_energy_shifts": None}
    assert "deviation" in compile(build_model(settings)).report


def test_unknown_element(potential):
    with pytest.raises(InputError, match="Xe"):
        potential(ase.Atoms("Xe"))


def test_report_and_refusal(model, potential):
    report = potential.report
    assert report["deviation"]["force"] < 1e-6 < report["deviation"]["largest_force"]
    assert max(report["table_errors"]) < 1e-8
    assert list(report["passes"]) == ["fold", "prune", "collapse", "table", "rounding"]
    assert report["passes"]["table"]["force"] > report["passes"]["collapse"]["force"]
    exact = compile(model, radial="exact").report
    assert list(exact["passes"]) == ["fold", "prune", "collapse", "rank", "rounding"]
    assert exact["passes"]["rank"]["force"] < 1e-12
    with pytest.raises(InputError, match=r"'table'.*intervals"):
        compile(model, intervals=8)
    with pytest.raises(InputError, match=r"'rounding'.*float64"):
        compile(model, dtype=torch.float32, radial="exact", skip=["rank"], tolerance=1e-9)
    assert compile(model, intervals=8, verify=False).report["intervals"] == [8, 8]


def test_an_engine_that_goes_wrong_is_refused(model, monkeypatch):
    """Also where it gives no number at all."""
    evaluate = Potential.evaluate

    def wrong(self, data):
        found = evaluate(self, data)
        found["forces"][0] = float("nan")
        return found

    monkeypatch.setattr(Potential, "evaluate", wrong)
    with pytest.raises(InputError, match="nan"):
        compile(model)


def test_the_model_is_left_as_it_is():
    model = build_model(config("no_parity")).train()
    compile(model)
    assert model.training


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"radial": "tables"}, "table or exact"),
        ({"skip": ["colapse"]}, "collapse"),
        ({"threads": 0}, "threads"),
        ({"dtype": torch.float16}, "float32 or float64"),
    ],
)
def test_arguments_out_of_range(model, arguments, message):
    with pytest.raises(InputError, match=message):
        compile(model, **arguments)


def test_threads(model):
    torch.set_num_threads(2)
    for threads in (1, 2, 5, None):
        found = compile(model, threads=threads, verify=False)(supercell())
        np.testing.assert_allclose(found.forces, compile(model, verify=False)(supercell()).forces, rtol=0, atol=1e-12)


def test_figure_of_the_radial_functions(model, potential, tmp_path):
    potential.plot_radial(tmp_path / "radial.png")
    assert (tmp_path / "radial.png").stat().st_size > 10_000
    with pytest.raises(InputError, match="no radial tables"):
        compile(model, radial="exact", verify=False).plot_radial(tmp_path / "none.png")


@pytest.mark.parametrize("radial", ["table", "exact"])
@pytest.mark.parametrize("case", ["preset_S", "zbl", "norm", "learnable_shift", "neighbours_by_type"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_files(case, dtype, radial, tmp_path):
    """What comes back computes the same, bit for bit."""
    potential = compile(build_model(config(case)), dtype=dtype, radial=radial, verify=False)
    potential.save(tmp_path / "x.nqf")
    again = load(tmp_path / "x.nqf")
    for name in ("report", "dtype", "type_names"):
        assert getattr(again, name) == getattr(potential, name)
    atoms = crystals()[1]
    assert np.array_equal(again(atoms).forces, potential(atoms).forces)


def test_damaged_files(potential, tmp_path):
    """Cut short or with bits flipped: an error, or, where only a weight changed, a potential; never a crash."""
    path = tmp_path / "x.nqf"
    potential.save(path)
    good = path.read_bytes()
    generator = np.random.default_rng(0)
    header = int.from_bytes(good[:8], "little")
    refused = 0
    for k in range(60):
        damaged = bytearray(good)
        if k % 3 == 0:
            damaged = damaged[: generator.integers(len(good))]
        else:
            end = header + 8 if k % 3 == 1 else len(good)
            for at in generator.integers(0, end, size=3):
                damaged[at] ^= 1 << int(generator.integers(8))
        path.write_bytes(damaged)
        try:
            load(path)(crystals()[0])
        except InputError:
            refused += 1
    assert refused >= 20  # those cut short at least


def _places(value, path=()):
    """Every place in a tree of dicts and lists."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from _places(item, (*path, key))


@pytest.mark.parametrize("radial", ["table", "exact"])
def test_hostile_files(radial, tmp_path):
    """Well-formed files whose header has been tampered with: an error or a potential, never a crash."""
    from nequip_fast.files import load_tensors, save_tensors

    compile(build_model(config("zbl")), radial=radial, verify=False).save(tmp_path / "good.nqf")
    tensors, header = load_tensors(tmp_path / "good.nqf")
    places = [place for place in _places(header) if place and place[0] in ("program", "dtype")]
    values = [-1, 0, 1, 2, 7, 4096, 2**31, 2**63 - 1, -(2**63), 10**30, 1e308, float("nan"), "x", None, [], {}, [[]]]
    names, generator = list(tensors), np.random.default_rng(1)
    refused = 0
    for k in range(300):
        changed, damaged = copy.deepcopy(header), dict(tensors)
        *way, last = places[generator.integers(len(places))]
        holder = changed
        for key in way:
            holder = holder[key]
        kind = k % 4
        if kind == 0:
            holder[last] = values[generator.integers(len(values))]
        elif kind == 1:
            del holder[last]
        elif kind == 2 and isinstance(holder, list):
            holder.extend(copy.deepcopy(holder[:1]) * 3)
        else:
            name, other = (names[generator.integers(len(names))] for _ in range(2))
            damaged[name] = [tensors[other], tensors[name][:1], tensors[name].flatten(), tensors[name].to(torch.int64)][
                generator.integers(4)
            ]
        save_tensors(tmp_path / "bad.nqf", damaged, changed)
        try:
            load(tmp_path / "bad.nqf")(crystals()[0])
        except InputError:
            refused += 1
    assert refused > 150


def test_a_program_that_is_too_wide(tmp_path):
    """Many paths may share their radial weights, and their sums would not fit into any memory."""
    from dataclasses import replace

    program = compile(build_model(config("no_parity")), verify=False).program
    path = program.layers[0].paths[0]
    layers = [replace(program.layers[0], paths=[path] * 4000), *program.layers[1:]]
    channels = [replace(program.layers[0].sent[0], mul=60_000)]
    knots, values = torch.tensor([0, 0.5, 1], dtype=torch.float64), torch.zeros(3, 3, 60_000, dtype=torch.float64)
    layers[0] = replace(
        layers[0], sent=channels, sent_by_type=torch.zeros(3, 60_000, dtype=torch.float64),
        radial=replace(layers[0].radial, knots=knots, values=values),
    )  # fmt: skip
    falling = replace(layers[0].radial, knots=knots.flip(0))
    with pytest.raises(RuntimeError, match="from 0 to 1"):
        Potential(replace(program, layers=[replace(layers[0], radial=falling), *layers[1:]]), torch.float64)
    with pytest.raises(RuntimeError, match="too wide"):
        Potential(replace(program, layers=layers), torch.float64)


def test_command_line(model, tmp_path, capsys):
    """compile writes a file that Python and md read."""
    from ase.io import read, write

    import nequip_fast
    from nequip_fast.cli import main
    from nequip_fast.model import save_model

    save_model(tmp_path / "model.safetensors", model)
    write(tmp_path / "start.xyz", supercell())
    assert main(["compile", str(tmp_path / "model.safetensors"), str(tmp_path / "x.nqf")]) == 0
    assert "beside the model, at most" in capsys.readouterr().out
    assert nequip_fast.load(tmp_path / "x.nqf").type_names == model.type_names
    arguments = ["--time_ps", "0.005", "--output", str(tmp_path / "md")]
    assert main(["md", str(tmp_path / "x.nqf"), str(tmp_path / "start.xyz"), *arguments]) == 0
    assert len(read(tmp_path / "md" / "trajectory.traj", ":")) >= 1
    assert main(["compile", str(tmp_path / "start.xyz"), str(tmp_path / "y.nqf")]) == 2
    assert not (tmp_path / "y.nqf").exists()
