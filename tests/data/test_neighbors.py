"""Neighbour lists against a brute-force sum over images."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nequip_fast.data import VerletList, neighbor_list, verlet_list
from nequip_fast.data.device_neighbors import DeviceVerletList
from nequip_fast.data.neighbors import overlapping_pair
from nequip_fast.errors import InputError

MIXED_PBC = list(itertools.product([False, True], repeat=3))


def brute_force(positions, cell, pbc, cutoff):
    """Every (i, j, shift) within the cutoff, from all images that could reach; also each pair's distance."""
    positions, cell = np.asarray(positions, float).reshape(-1, 3), np.asarray(cell, float)
    periodic = np.flatnonzero(pbc)
    spread = np.linalg.norm(np.ptp(positions, axis=0)) if len(positions) else 0.0
    reach = [0, 0, 0]
    if len(periodic):
        # |shift_k| <= |S @ cell| * |row k of the pseudo-inverse|, and |S @ cell| <= cutoff + spread
        dual = np.linalg.norm(np.linalg.pinv(cell[periodic]), axis=0)
        for axis, norm in zip(periodic, dual, strict=True):
            reach[axis] = int(np.ceil((cutoff + spread) * norm))
    found = {}
    for shift in itertools.product(*(range(-r, r + 1) for r in reach)):
        vectors = positions[None] - positions[:, None] + np.array(shift) @ cell
        lengths = np.linalg.norm(vectors, axis=-1)
        for i, j in np.argwhere(lengths < cutoff):
            if i != j or any(shift):
                found[(int(i), int(j), *shift)] = lengths[i, j]
    return found


def as_tuples(edge_index, shifts):
    assert edge_index.shape == (2, len(shifts))
    return [
        (int(i), int(j), *(int(s) for s in shift))
        for i, j, shift in zip(*edge_index.tolist(), shifts.tolist(), strict=True)
    ]


def assert_matches_oracle(positions, cell, pbc, cutoff, result):
    edges = as_tuples(*result)
    assert edges == sorted(edges)
    assert len(edges) == len(set(edges))
    sure, possible = (set(brute_force(positions, cell, pbc, cutoff * factor)) for factor in (1 - 1e-10, 1 + 1e-10))
    assert sure <= set(edges) <= possible


@st.composite
def strange_systems(draw):
    """Skewed, flat, left-handed and tiny cells, periodic along any axes, with atoms far outside too."""
    seed = draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    heights = np.array(draw(st.tuples(*[st.sampled_from([1.1, 2.0, 3.7, 9.0])] * 3)))
    skew = draw(st.sampled_from([0.0, 0.5, 2.0]))
    cell = np.diag(heights) + np.tril(skew * heights.mean() * rng.uniform(-1, 1, (3, 3)), -1)
    rotation = np.linalg.qr(rng.normal(size=(3, 3)))[0]  # proper or not: left-handed cells included
    pbc = draw(st.sampled_from(MIXED_PBC))
    cell = cell @ rotation
    if draw(st.booleans()):
        cell[~np.array(pbc)] = 0  # no vector where none is needed
    count = draw(st.sampled_from([1, 2, 7]))
    spread = draw(st.sampled_from([0.5, 1.5]))
    positions = spread * rng.uniform(-1, 1, (count, 3)) * np.abs(heights).mean()
    return positions, cell, pbc


@settings(max_examples=120, deadline=None)
@given(strange_systems(), st.sampled_from([0.8, 2.5, 4.1]))
def test_strange_cells(system, cutoff):
    positions, cell, pbc = system
    assert_matches_oracle(positions, cell, pbc, cutoff, neighbor_list(positions, cell, pbc, cutoff))


@pytest.mark.parametrize("pbc", MIXED_PBC)
def test_non_periodic_axes_have_no_shifts(pbc):
    cell = [[2.0, 0.3, 0], [0.5, 2.2, 0.1], [-0.7, 0.4, 1.9]]
    positions = np.random.default_rng(0).uniform(-5, 5, (5, 3))
    result = neighbor_list(positions, cell, pbc, 3.0)
    assert not result[1][:, ~np.array(pbc)].any()
    assert_matches_oracle(positions, cell, pbc, 3.0, result)


def test_own_images_but_not_itself():
    edge_index, shifts = neighbor_list(np.zeros((1, 3)), np.eye(3), True, 1.2)
    assert edge_index.tolist() == [[0] * 6, [0] * 6]
    assert (shifts.abs().sum(dim=1) == 1).all()


def test_cutoff_is_exclusive():
    positions = [[0, 0, 0], [2.0, 0, 0]]
    assert neighbor_list(positions, None, False, 2.0)[0].shape == (2, 0)
    assert neighbor_list(positions, None, False, np.nextafter(2.0, 3))[0].shape == (2, 2)


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_atoms_for_an_edge(count):
    edge_index, shifts = neighbor_list(np.zeros((count, 3)), None, False, 3.0)
    assert edge_index.shape == (2, 0)
    assert shifts.shape == (0, 3)


def test_every_edge_has_its_reverse():
    rng = np.random.default_rng(3)
    edges = set(as_tuples(*neighbor_list(rng.uniform(-4, 9, (12, 3)), rng.normal(size=(3, 3)) * 4, True, 4.0)))
    assert edges == {(j, i, -a, -b, -c) for i, j, a, b, c in edges}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([[0, 0, 0], [0, np.nan, 0]], None, False, 3.0), "position of atom 1"),
        (([[np.inf, 0, 0]], np.eye(3), True, 1.0), "position of atom 0"),
        (([[0, 0, 0]], np.zeros((3, 3)), True, 3.0), "no independent lattice vectors"),
        (([[0, 0, 0]], None, [True, False, False], 3.0), "periodic along a, but"),
        (([[0, 0, 0]], [[1, 0, 0], [2, 0, 0], [0, 0, 1]], True, 1.0), "no independent lattice vectors"),
        (([[0, 0, 0]], [[1, 0, 0], [0, np.nan, 0], [0, 0, 1]], True, 1.0), "cell"),
        (([[0, 0, 0]], None, False, 0.0), "the cutoff is 0.0"),
        (([[0, 0, 0]], None, False, float("nan")), "the cutoff is nan"),
        (([[0, 0, 0]], np.eye(3), True, 50.0), "about 523599 neighbours"),
    ],
)
def test_errors(arguments, message):
    with pytest.raises(InputError, match=message):
        neighbor_list(*arguments)


def test_negative_skin():
    with pytest.raises(InputError, match="skin = -1"):
        VerletList(3.0, -1)


def test_overlapping_pair():
    positions = np.array([[0, 0, 0], [1.0, 0, 0], [9.9999, 0, 0]])
    assert overlapping_pair(positions, None, False) is None
    assert overlapping_pair(positions, np.eye(3) * 10, True) == (0, 2)
    assert overlapping_pair(positions, np.eye(3) * 10, [False, True, True]) is None


class TestVerlet:
    CUTOFF, SKIN = 3.0, 0.8
    make = VerletList

    def system(self, count=20):
        rng = np.random.default_rng(5)
        cell = np.array([[6.0, 0, 0], [2.5, 5.5, 0], [-1.0, 0.4, 2.7]])
        return rng.uniform(-8, 8, (count, 3)), cell, np.array([True, True, True]), rng

    def assert_fresh(self, verlet, positions, cell, pbc):
        """The very arrays of a list made from scratch, and those right."""
        edge_index, shifts = verlet(positions, cell, pbc)
        fresh_index, fresh_shifts = neighbor_list(positions, cell, pbc, self.CUTOFF)
        assert edge_index.tolist() == fresh_index.tolist()
        assert shifts.tolist() == fresh_shifts.tolist()

    def test_random_walk(self):
        positions, cell, pbc, rng = self.system()
        verlet = self.make(self.CUTOFF, self.SKIN)
        for _ in range(100):
            self.assert_fresh(verlet, positions, cell, pbc)
            positions = positions + rng.normal(scale=0.03, size=positions.shape)
        assert_matches_oracle(positions, cell, pbc, self.CUTOFF, verlet(positions, cell, pbc))
        assert 2 < verlet.num_collections < 30

    def test_two_atoms_approach_from_the_edge_of_the_skin(self):
        verlet = self.make(self.CUTOFF, self.SKIN)
        start = self.CUTOFF + self.SKIN
        for step in np.linspace(0, 0.5 * self.SKIN + 0.01, 200):
            self.assert_fresh(verlet, [[step, 0, 0], [start - step, 0, 0]], np.zeros((3, 3)), False)
        assert verlet.num_collections == 2

    def test_slow_creep_is_measured_from_the_collection(self):
        verlet = self.make(self.CUTOFF, self.SKIN)
        for x in np.arange(6.0, 2.0, -0.1):
            self.assert_fresh(verlet, [[0, 0, 0], [x, 0, 0]], np.zeros((3, 3)), False)

    def test_wrapped_atom(self):
        positions, cell, pbc, _ = self.system()
        verlet = self.make(self.CUTOFF, self.SKIN)
        self.assert_fresh(verlet, positions, cell, pbc)
        for atom, shift in ((0, [1, 0, 0]), (7, [-2, 1, 0]), (19, [0, 0, 1])):
            positions = positions.copy()
            positions[atom] += shift @ cell
            self.assert_fresh(verlet, positions, cell, pbc)
        assert verlet.num_collections == 4

    def test_swapped_atoms(self):
        positions, cell, pbc, _ = self.system()
        verlet = self.make(self.CUTOFF, self.SKIN)
        self.assert_fresh(verlet, positions, cell, pbc)
        self.assert_fresh(verlet, positions[::-1], cell, pbc)

    @pytest.mark.parametrize("change", [1e-12, 0.01, 1.0])
    def test_cell_change(self, change):
        positions, cell, pbc, _ = self.system()
        verlet = self.make(self.CUTOFF, self.SKIN)
        verlet(positions, cell, pbc)
        cell = cell.copy()
        cell[2, 1] += change
        self.assert_fresh(verlet, positions, cell, pbc)
        assert verlet.num_collections == 2

    def test_pbc_and_number_of_atoms_change(self):
        positions, cell, pbc, _ = self.system()
        verlet = self.make(self.CUTOFF, self.SKIN)
        verlet(positions, cell, pbc)
        self.assert_fresh(verlet, positions, cell, [True, False, True])
        self.assert_fresh(verlet, positions[:-1], cell, [True, False, True])
        self.assert_fresh(verlet, positions[:0], cell, [True, False, True])

    def test_caller_may_move_its_arrays_in_place(self):
        positions, cell, pbc, _ = self.system()
        verlet = self.make(self.CUTOFF, self.SKIN)
        verlet(positions, cell, pbc)
        positions[3] += 2.0
        self.assert_fresh(verlet, positions, cell, pbc)
        cell[0] *= 1.1
        self.assert_fresh(verlet, positions, cell, pbc)

    def test_small_moves_reuse_the_list(self):
        positions, cell, pbc, rng = self.system()
        verlet = self.make(self.CUTOFF, self.SKIN)
        for _ in range(5):
            self.assert_fresh(verlet, positions + rng.uniform(-0.1, 0.1, positions.shape), cell, pbc)
        assert verlet.num_collections == 1

    def test_without_skin_never_reuses(self):
        positions, cell, pbc, _ = self.system()
        verlet = self.make(self.CUTOFF, 0.0)
        for _ in range(2):
            self.assert_fresh(verlet, positions, cell, pbc)
        assert verlet.num_collections == 2

    def test_not_a_number(self):
        positions, cell, pbc, _ = self.system()
        verlet = self.make(self.CUTOFF, self.SKIN)
        verlet(positions, cell, pbc)
        positions[4, 1] = np.nan
        with pytest.raises(InputError, match="position of atom 4"):
            verlet(positions, cell, pbc)


class TestDeviceVerlet(TestVerlet):
    """The same of lists that are searched for on a device, here the CPU."""

    @staticmethod
    def make(cutoff, skin):
        pytest.importorskip("nvalchemiops")
        return DeviceVerletList(cutoff, skin, torch.device("cpu"))

    @given(system=strange_systems(), cutoff=st.sampled_from([0.8, 2.5, 4.1]))
    @settings(max_examples=40, deadline=None)
    def test_strange_cells(self, system, cutoff):
        positions, cell, pbc = system
        found, expected = self.make(cutoff, 0.0)(positions, cell, pbc), neighbor_list(positions, cell, pbc, cutoff)
        assert [a.tolist() for a in found] == [b.tolist() for b in expected]


def test_the_list_of_a_device():
    """On the CPU vesin's."""
    assert type(verlet_list(3.0, 0.5, torch.device("cpu"))) is VerletList
