"""Graphs and batches, against nequip's own where it has one."""

import itertools

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator

from nequip_fast.data import AtomsDataset, VerletList, collate, graph_from_atoms, keys, split_indices
from nequip_fast.errors import InputError

TYPES = ["H", "C", "O"]


def with_labels(atoms, stress=False):
    rng = np.random.default_rng(len(atoms))
    results = {"energy": rng.normal(), "forces": rng.normal(size=(len(atoms), 3))}
    if stress:
        results["stress"] = np.arange(1.0, 7.0)
    atoms.calc = SinglePointCalculator(atoms, **results)
    return atoms


def ethanol():
    return with_labels(molecule("CH3CH2OH"))


def crystal():
    """Carbon in a cell smaller than the cutoff."""
    return with_labels(bulk("C", "diamond", 3.57), stress=True)


def lengths(graph):
    i, j = graph[keys.EDGE_INDEX]
    cell = graph[keys.CELL][graph[keys.BATCH][i]]
    shift = torch.einsum("ex,exy->ey", graph[keys.EDGE_CELL_SHIFT], cell)
    return (graph[keys.POSITIONS][j] - graph[keys.POSITIONS][i] + shift).norm(dim=1)


def edges(graph):
    rows = torch.cat([graph[keys.EDGE_INDEX].T.double(), graph[keys.EDGE_CELL_SHIFT]], dim=1)
    return sorted(map(tuple, rows.tolist()))


def test_shapes_types_and_labels():
    atoms = ethanol()
    graph = graph_from_atoms(atoms, TYPES, 4.0)
    assert graph[keys.POSITIONS].dtype == graph[keys.EDGE_CELL_SHIFT].dtype == torch.float64
    assert [TYPES[t] for t in graph[keys.ATOM_TYPES]] == list(atoms.symbols)
    assert graph[keys.ATOMIC_NUMBERS].tolist() == atoms.numbers.tolist()
    assert graph[keys.CELL].shape == (1, 3, 3)
    assert not graph[keys.CELL].any()
    assert not graph[keys.PBC].any()
    assert graph[keys.NUM_ATOMS].tolist() == [9]
    assert graph[keys.TOTAL_ENERGY].item() == atoms.get_potential_energy()
    assert graph[keys.FORCES].tolist() == atoms.get_forces().tolist()
    assert keys.STRESS not in graph
    assert (graph[keys.EDGE_INDEX][0].diff() >= 0).all()


def test_stress_of_a_crystal():
    graph = graph_from_atoms(crystal(), TYPES, 4.0)
    assert graph[keys.STRESS].tolist() == [[[1, 6, 5], [6, 2, 4], [5, 4, 3]]]
    assert graph[keys.CELL][0].tolist() == bulk("C", "diamond", 3.57).cell.tolist()
    assert graph[keys.PBC].all()


def test_box_of_a_molecule_is_dropped():
    atoms = molecule("H2O", vacuum=5.0)
    assert atoms.cell.volume > 0
    assert not graph_from_atoms(atoms, TYPES, 4.0)[keys.CELL].any()


def test_labels_must_belong_to_these_positions():
    atoms = ethanol()
    atoms.positions[0, 0] += 0.1
    assert keys.TOTAL_ENERGY not in graph_from_atoms(atoms, TYPES, 4.0)


def test_live_calculators_are_not_asked():
    atoms = Atoms("H2", [[0, 0, 0], [0, 0, 0.7]], calculator=EMT())
    atoms.get_potential_energy()
    assert keys.TOTAL_ENERGY not in graph_from_atoms(atoms, TYPES, 4.0)


CUTOFFS = [None, {"H": 2.0}, {"H": 2.0, "C": {"H": 3.0, "C": 1.6}}, {"O": {"C": 1.7}, "C": {"O": 3.5}}]


@pytest.mark.parametrize("cutoffs", CUTOFFS)
@pytest.mark.parametrize("make", [ethanol, crystal])
def test_same_edges_as_nequip(make, cutoffs):
    from nequip.data import compute_neighborlist_, from_ase
    from nequip.data.transforms import ChemicalSpeciesToAtomTypeMapper, NeighborListTransform

    ours = graph_from_atoms(make(), TYPES, 4.0, per_edge_type_cutoff=cutoffs)
    theirs = ChemicalSpeciesToAtomTypeMapper(TYPES)(from_ase(make()))
    if cutoffs is None:
        theirs = compute_neighborlist_(theirs, 4.0)
    else:
        theirs = NeighborListTransform(4.0, per_edge_type_cutoff=cutoffs, type_names=TYPES)(theirs)
    theirs.setdefault(keys.EDGE_CELL_SHIFT, torch.zeros(theirs[keys.EDGE_INDEX].shape[1], 3, dtype=torch.float64))
    assert edges(ours) == edges(theirs)
    assert ours[keys.ATOM_TYPES].tolist() == theirs[keys.ATOM_TYPES].view(-1).tolist()


def test_per_edge_type_cutoff_is_by_centre_then_neighbour():
    atoms = Atoms("OC", [[0, 0, 0], [0, 0, 2.0]])
    graph = graph_from_atoms(atoms, TYPES, 4.0, per_edge_type_cutoff={"O": {"C": 1.5}})
    assert graph[keys.EDGE_INDEX].tolist() == [[1], [0]]


def test_per_edge_type_cutoff_of_an_unknown_element():
    with pytest.raises(InputError, match="per_edge_type_cutoff names 'Cl'"):
        graph_from_atoms(ethanol(), TYPES, 4.0, per_edge_type_cutoff={"Cl": 2.0})


def test_verlet_list():
    atoms, verlet = crystal(), VerletList(4.0, 0.5)
    for step in range(3):
        atoms.positions[0, 0] += 0.05 * step
        assert edges(graph_from_atoms(atoms, TYPES, 4.0, verlet=verlet)) == edges(graph_from_atoms(atoms, TYPES, 4.0))
    assert verlet.num_collections == 1
    with pytest.raises(InputError, match=r"the Verlet list has cutoff 4.0 Å, the graph 5.0 Å"):
        graph_from_atoms(atoms, TYPES, 5.0, verlet=verlet)


def test_unknown_element():
    with pytest.raises(InputError, match="the structure holds Fe, N, but the model knows only H, C, O;"):
        graph_from_atoms(Atoms("NFeH", [[0, 0, 0], [0, 0, 2], [0, 2, 0]]), TYPES, 4.0)


def test_two_atoms_at_the_same_place():
    with pytest.raises(InputError, match="atoms 1 and 2 are at the same place"):
        graph_from_atoms(Atoms("HHH", [[0, 0, 0], [0, 0, 2], [0, 0, 2.0005]]), TYPES, 4.0)


def test_nan_position():
    with pytest.raises(InputError, match="the position of atom 1 is"):
        graph_from_atoms(Atoms("HH", [[0, 0, 0], [0, 0, np.nan]]), TYPES, 4.0)


class TestCollate:
    def test_equals_the_parts(self):
        parts = [graph_from_atoms(make(), TYPES, 4.0) for make in (ethanol, crystal, ethanol)]
        batch = collate(parts)
        assert batch[keys.NUM_ATOMS].tolist() == [9, 2, 9]
        assert batch[keys.BATCH].tolist() == [0] * 9 + [1] * 2 + [2] * 9
        assert batch[keys.CELL].shape == (3, 3, 3)
        assert batch[keys.PBC].tolist() == [[False] * 3, [True] * 3, [False] * 3]
        assert torch.equal(lengths(batch), torch.cat([lengths(part) for part in parts]))
        assert (batch[keys.EDGE_INDEX][0].diff() >= 0).all()
        i, j = batch[keys.EDGE_INDEX]
        assert torch.equal(batch[keys.BATCH][i], batch[keys.BATCH][j])
        assert batch[keys.TOTAL_ENERGY].shape == (3, 1)
        assert torch.equal(batch[keys.FORCES], torch.cat([part[keys.FORCES] for part in parts]))

    def test_missing_labels_are_nan(self):
        bare = graph_from_atoms(molecule("H2O"), TYPES, 4.0)
        batch = collate([bare, graph_from_atoms(crystal(), TYPES, 4.0)])
        assert batch[keys.TOTAL_ENERGY].isnan().tolist() == [[True], [False]]
        assert batch[keys.FORCES].isnan().all(dim=1).tolist() == [True] * 3 + [False] * 2
        assert batch[keys.STRESS].isnan().all(dim=2).all(dim=1).tolist() == [True, False]
        assert keys.TOTAL_ENERGY not in collate([bare, bare])

    def test_isolated_atom(self):
        batch = collate([graph_from_atoms(Atoms("H"), TYPES, 4.0), graph_from_atoms(ethanol(), TYPES, 4.0)])
        assert batch[keys.EDGE_INDEX].min() == 1

    def test_inputs_are_untouched(self):
        graph = graph_from_atoms(ethanol(), TYPES, 4.0)
        before = {name: tensor.clone() for name, tensor in graph.items()}
        collate([graph, graph])
        assert graph.keys() == before.keys()
        assert all(torch.equal(graph[name], before[name]) for name in before)

    def test_nothing(self):
        with pytest.raises(InputError, match="at least one structure"):
            collate([])


class TestDataset:
    def test_graphs(self):
        dataset = AtomsDataset([ethanol(), crystal()], TYPES, 4.0, per_edge_type_cutoff={"C": 2.0})
        assert len(dataset) == 2
        assert edges(dataset[1]) == edges(graph_from_atoms(crystal(), TYPES, 4.0, per_edge_type_cutoff={"C": 2.0}))

    def test_with_a_data_loader(self):
        dataset = AtomsDataset([ethanol()] * 5, TYPES, 4.0)
        sizes = [len(b[keys.NUM_ATOMS]) for b in torch.utils.data.DataLoader(dataset, batch_size=2, collate_fn=collate)]
        assert sizes == [2, 2, 1]

    def test_error_names_the_structure(self):
        with pytest.raises(InputError, match="structure 1: the structure holds Fe, but"):
            AtomsDataset([ethanol(), Atoms("Fe")], TYPES, 4.0)


class TestSplit:
    def test_disjoint_and_seeded(self):
        train, val, test = split_indices(100, 60, 20, 15, seed=3)
        assert (len(train), len(val), len(test)) == (60, 20, 15)
        assert len({*train, *val, *test}) == 95
        assert split_indices(100, 60, 20, 15, seed=3) == (train, val, test)
        assert split_indices(100, 60, 20, 15, seed=4)[0] != train
        assert split_indices(100, 60, 20, 0, seed=3) == (train, val, [])

    def test_everything(self):
        assert sorted(itertools.chain(*split_indices(10, 7, 2, 1, seed=0))) == list(range(10))

    def test_too_few(self):
        with pytest.raises(InputError, match=r"n_train=8 \+ n_val=2 \+ n_test=1 needs 11 structures, but there are 10"):
            split_indices(10, 8, 2, 1, seed=0)

    def test_negative(self):
        with pytest.raises(InputError, match="n_val = -1"):
            split_indices(10, 8, -1, 1, seed=0)
