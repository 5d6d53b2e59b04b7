"""Reading structures: what files call their labels, and one sentence for each way a file can be wrong."""

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from nequip_fast.data import read_structures
from nequip_fast.errors import InputError


def labelled(seed=0, stress=False, pbc=True):
    rng = np.random.default_rng(seed)
    atoms = Atoms(
        "OHH", [[0, 0, 0], [0.96, 0, 0], [0, 0.96, 0]] + 0.05 * rng.normal(size=(3, 3)), cell=[5] * 3, pbc=pbc
    )
    results = {"energy": rng.normal(), "forces": rng.normal(size=(3, 3))}
    if stress:
        results["stress"] = rng.normal(size=6)
    atoms.calc = SinglePointCalculator(atoms, **results)
    return atoms


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "water.xyz"
    ase.io.write(path, [labelled(seed, stress=True) for seed in range(3)], format="extxyz")
    return path


@pytest.mark.parametrize("suffix", [".xyz", ".extxyz", ".traj", ".json", ".xyz.gz"])
def test_any_format_ase_reads(tmp_path, suffix):
    written = [labelled(seed, stress=True) for seed in range(3)]
    path = tmp_path / f"data{suffix}"
    ase.io.write(path, written)
    read = read_structures(path)
    assert len(read) == 3
    for old, new in zip(written, read, strict=True):
        assert new.get_potential_energy() == pytest.approx(old.get_potential_energy(), abs=1e-12)
        np.testing.assert_allclose(new.get_forces(), old.get_forces(), atol=1e-8)
        np.testing.assert_allclose(new.get_stress(), old.get_stress(), atol=1e-8)
        np.testing.assert_allclose(new.positions, old.positions, atol=1e-8)
        np.testing.assert_allclose(new.cell, old.cell, atol=1e-8)
        assert new.pbc.all()


def test_keys_of_any_name(tmp_path):
    atoms = labelled()
    stress = np.array([[1.0, 0.1, 0.2], [0.1, 2.0, 0.3], [0.2, 0.3, 3.0]])
    other = atoms.copy()
    other.info |= {"dft_energy": -7.5, "dft_stress": stress}
    other.arrays["dft_forces"] = np.arange(9.0).reshape(3, 3)
    other.calc = SinglePointCalculator(other, energy=1.0, forces=np.zeros((3, 3)))
    ase.io.write(tmp_path / "a.xyz", other, format="extxyz")
    keys = {"energy_key": "dft_energy", "forces_key": "dft_forces", "stress_key": "dft_stress"}
    (read,) = read_structures(tmp_path / "a.xyz", **keys)
    assert read.get_potential_energy() == -7.5
    assert read.get_forces().tolist() == other.arrays["dft_forces"].tolist()
    np.testing.assert_allclose(read.get_stress(voigt=False), stress, atol=1e-12)
    assert read_structures(tmp_path / "a.xyz")[0].get_potential_energy() == 1.0


@pytest.mark.parametrize(("index", "seeds"), [(":", [0, 1, 2]), ("1:", [1, 2]), ("-1", [2]), ("::2", [0, 2])])
def test_index(file, index, seeds):
    energies = [atoms.get_potential_energy() for atoms in read_structures(file, index=index)]
    assert energies == pytest.approx([labelled(seed).get_potential_energy() for seed in seeds])


def test_at_sign_in_the_name_is_part_of_it(file):
    odd = file.rename(file.parent / "water@300.xyz")
    assert len(read_structures(odd)) == 3


def test_labels_may_be_optional(tmp_path):
    ase.io.write(tmp_path / "bare.xyz", Atoms("H2", [[0, 0, 0], [0, 0, 0.7]]), format="extxyz")
    (atoms,) = read_structures(tmp_path / "bare.xyz", require_labels=False)
    assert atoms.calc is None
    with pytest.raises(InputError, match=r"bare.xyz: structure 0 has no energy under 'energy'"):
        read_structures(tmp_path / "bare.xyz")


def fails(path, message, **options):
    with pytest.raises(InputError, match=message) as caught:
        read_structures(path, **options)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_no_such_file(tmp_path):
    fails(tmp_path / "absent.xyz", "no such file")
    fails(tmp_path, "no such file")


@pytest.mark.parametrize("name", ["empty.xyz", "empty.traj"])
def test_empty_file(tmp_path, name):
    (tmp_path / name).touch()
    fails(tmp_path / name, "the file is empty")


def test_blank_file(tmp_path):
    (tmp_path / "blank.xyz").write_text("\n\n")
    fails(tmp_path / "blank.xyz", "no structures|ASE cannot read it")


@pytest.mark.parametrize("lines_lost", [1, 2, 3])
def test_truncated_last_frame(file, lines_lost):
    file.write_text("\n".join(file.read_text().splitlines()[:-lines_lost]) + "\n")
    fails(file, r"structure 2 \(line 11\) is cut short: it announces 3 atoms and the file ends at line")


def test_truncated_within_a_line(file):
    file.write_text(file.read_text()[:-40])
    fails(file, r"structure 2 \(line 11\) is cut short")


def test_stray_text_between_frames(file):
    lines = file.read_text().splitlines()
    file.write_text("\n".join([*lines[:5], "converged", *lines[5:]]) + "\n")
    fails(file, "line 6 should be the number of atoms of structure 1, but is 'converged'")


def test_not_a_structure_file(tmp_path):
    path = tmp_path / "notes.dat"
    path.write_text("hello\n")
    fails(path, "ASE cannot read it")


def test_key_not_there_names_those_that_are(tmp_path):
    atoms = labelled()
    atoms.info |= {"REF_energy": -3.0, "comment": "words"}
    atoms.arrays["REF_forces"] = np.ones((3, 3))
    ase.io.write(tmp_path / "a.xyz", atoms, format="extxyz")
    path = tmp_path / "a.xyz"
    fails(
        path,
        r"no energy under 'REF_energi': it has 'REF_energy', 'energy'; .*did you mean 'REF_energy'",
        energy_key="REF_energi",
    )
    fails(
        path, r"no forces under 'REFforces': it has 'REF_forces', 'forces'; .*mean 'REF_forces'", forces_key="REFforces"
    )
    fails(path, "no structure has a stress under 'virial'", stress_key="virial")


def test_no_forces_at_all(tmp_path):
    atoms = Atoms("H")
    atoms.calc = SinglePointCalculator(atoms, energy=-13.6)
    ase.io.write(tmp_path / "atom.xyz", atoms, format="extxyz")
    fails(tmp_path / "atom.xyz", "structure 0 has no forces under 'forces': it has nothing that could be forces")


def rewrite(file, change):
    """Apply ``change`` to the second structure and write all three again."""
    frames = read_structures(file)
    results = dict(frames[1].calc.results)
    frames[1].calc = None
    change(frames[1], results)
    for key, value in results.items():
        (frames[1].arrays if np.shape(value)[:1] == (3,) else frames[1].info)[key] = value
    ase.io.write(file, frames, format="extxyz")


def test_nan_position(file):
    def change(atoms, results):
        atoms.positions[2, 0] = np.nan

    rewrite(file, change)
    fails(file, "structure 1: positions under 'positions' of atom 2 is not a finite number")


def test_nan_forces(file):
    rewrite(file, lambda atoms, results: results["forces"].__setitem__((1, 2), np.nan))
    fails(file, "structure 1: forces under 'forces' of atom 1 is not a finite number")


def test_infinite_energy(file):
    rewrite(file, lambda atoms, results: results.update(energy=np.inf))
    fails(file, "structure 1: energy under 'energy' is not a finite number")


def test_energy_that_is_no_number(file):
    file.write_text(file.read_text().replace("energy=", "energy=about", 1))
    fails(file, "structure 0: the energy under 'energy' is not numeric: 'about")


def test_forces_of_wrong_shape(file):
    def change(atoms, results):
        results["two"] = results["forces"][:, :2]

    rewrite(file, change)
    with pytest.raises(InputError, match=r"structure 0: forces under 'two' has shape \(3, 2\); it should be \(3, 3\)"):
        read_structures(file, index="1", forces_key="two")


def test_stress_of_wrong_shape_or_symmetry(file):
    rewrite(file, lambda atoms, results: atoms.info.update(odd=np.arange(4.0), skew=np.arange(9.0).reshape(3, 3)))
    fails(file, r"structure 1: stress under 'odd' has shape \(4,\); it should be \(6,\)", stress_key="odd")
    fails(file, "structure 1: the stress under 'skew' is not symmetric", stress_key="skew")


@pytest.mark.parametrize("across_the_boundary", [False, True])
def test_two_atoms_at_the_same_place(file, across_the_boundary):
    def change(atoms, results):
        atoms.positions[2] = atoms.positions[0] + 1e-4 + ([5.0, 0, 0] if across_the_boundary else 0)

    rewrite(file, change)
    fails(file, "structure 1: atoms 0 and 2 are at the same place")


def test_periodic_without_cell(tmp_path):
    atoms = labelled()
    atoms.cell[:] = 0
    ase.io.write(tmp_path / "a.traj", atoms)
    fails(tmp_path / "a.traj", "structure 0: periodic along a/b/c, but the cell")
