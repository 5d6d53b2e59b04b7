"""The engine of GPUs, on the CPU: the same operators, there in C++ or as Triton's kernels interpreted."""

from __future__ import annotations

import copy
import pickle

import ase
import numpy as np
import pytest
import torch

from bench.crystal import crystal
from nequip_fast.data import VerletList
from nequip_fast.data.device_neighbors import DeviceVerletList
from nequip_fast.engine import compile
from nequip_fast.engine import network as network_module
from nequip_fast.engine import on_device as engine_module
from nequip_fast.engine import pairs as pairs_module
from nequip_fast.engine import rows as rows_module
from nequip_fast.engine.on_device import DeviceEngine
from nequip_fast.errors import InputError
from nequip_fast.model import build_model
from tests.helpers import KERNELS
from tests.model.model_cases import CASES, config, crystals, inputs, relative_error

COMPILED = [name for name in CASES if name != "graph_field"]
knows_ends = pytest.mark.skipif(KERNELS not in ("triton", "cuda"), reason="plain torch takes all edges of a tensor")
interpreted_too = pytest.mark.skipif(KERNELS == "triton", reason="plain torch around the kernels, which others test")


def on_device(potential, dtype=None):
    """The potential evaluated by the other engine."""
    copy = type(potential)(potential.program, dtype or potential.dtype)
    copy._engine = DeviceEngine(potential.program, copy.dtype, torch.device("cpu"))
    return copy


@interpreted_too
@pytest.mark.parametrize("radial", ["table", "exact"])
@pytest.mark.parametrize("kind", ["molecules", "crystals"])
@pytest.mark.parametrize("case", COMPILED)
def test_equals_the_engine_in_c(case, kind, radial):
    """Every kind of model, every output, to rounding; coarse tables too."""
    settings = {"intervals": 64} if radial == "table" else {}
    potential = compile(build_model(config(case)).eval(), radial=radial, dtype=torch.float64, verify=False, **settings)
    data = inputs(kind)
    found = on_device(potential).evaluate(data)
    for name, expected in potential.evaluate(data).items():
        if torch.isfinite(expected).all():
            assert relative_error(found[name], expected) < 1e-13, name


@pytest.fixture
def few_at_a_time(monkeypatch):
    """As if the structures of these tests had millions of atoms: rows and edges in parts, little kept."""
    for module, name, value in (
        (network_module, "_MANY_ATOMS", 3), (network_module, "_MANY_EDGES", 7), (rows_module, "_ROWS_AT_ONCE", 2),
        (rows_module, "_FEW_ROWS", 0), (pairs_module, "_MANY", 11),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, value)


@pytest.mark.parametrize("case", ["preset_S"] if KERNELS == "triton" else COMPILED)
def test_many_atoms(few_at_a_time, case):
    potential = compile(build_model(config(case)).eval(), dtype=torch.float64, intervals=64, verify=False)
    found = on_device(potential).evaluate(inputs("crystals"))
    for name, expected in potential.evaluate(inputs("crystals")).items():
        if torch.isfinite(expected).all():
            assert relative_error(found[name], expected) < 1e-13, name


@interpreted_too
@pytest.mark.parametrize("skip", [["collapse"], ["prune", "collapse", "rank"]])
def test_passes_left_out(skip):
    potential = compile(build_model(config("learnable_shift")), radial="exact", skip=skip, verify=False)
    for name, expected in potential.evaluate(inputs("crystals")).items():
        assert relative_error(on_device(potential).evaluate(inputs("crystals"))[name], expected) < 1e-13, name


@interpreted_too
@pytest.mark.parametrize(
    ("checkpoint", "modal"), [("0_11Jul2024", None), ("l3i5", None), ("MF_0", "PBE")], ids=["0", "l3i5", "MF-0"]
)
def test_sevennet(checkpoint, modal):
    pytest.importorskip("sevenn")
    import sevenn._const

    path = getattr(sevenn._const, f"SEVENNET_{checkpoint}")
    potential = compile(path, modal=modal, dtype=torch.float64, intervals=64, verify=False)
    atoms = crystals()[1]
    found, expected = on_device(potential)(atoms), potential(atoms)
    np.testing.assert_allclose(found.forces, expected.forces, rtol=0, atol=1e-11)
    np.testing.assert_allclose(found.stress, expected.stress, rtol=0, atol=1e-11)


@interpreted_too
@pytest.mark.parametrize("radial", ["table", "exact"])
def test_in_float32(radial):
    """Fine tables, where a slope from the values at two knots would have lost four digits."""
    settings = {"intervals": 2048} if radial == "table" else {}
    model = build_model(config("preset_M")).eval()
    potential = compile(model, radial=radial, dtype=torch.float64, verify=False, **settings)
    exact, rounded = potential.evaluate(inputs("crystals")), on_device(potential, torch.float32)
    for name, found in rounded.evaluate(inputs("crystals")).items():
        assert relative_error(found, exact[name]) < 3e-6, name


class _Moving:
    """A crystal, its list of pairs and both engines."""

    def __init__(self, case="per_edge_type_cutoff"):
        self.potential = compile(build_model(config(case)).eval(), dtype=torch.float64, verify=False)
        self.other = on_device(self.potential)
        self.atoms = crystals()[0]
        self.list = VerletList(self.potential.r_max, skin=0.5)

    @property
    def engine(self):
        return self.other._engine

    def compare(self):
        found, expected = self.other.of_pairs(self.atoms, self.list), self.potential(self.atoms)
        assert found.energy == pytest.approx(expected.energy, rel=1e-12)
        np.testing.assert_allclose(found.forces, expected.forces, rtol=0, atol=1e-10)
        np.testing.assert_allclose(found.virial, expected.virial, rtol=0, atol=1e-9)


@pytest.mark.parametrize("searched", ["host", "device"])
def test_moving_atoms(searched):
    """Pairs are uploaded again exactly when there are others; other cells and elements are seen too."""
    moving, rng = _Moving(), np.random.default_rng(0)
    if searched == "device":
        pytest.importorskip("nvalchemiops")
        moving.list = DeviceVerletList(moving.potential.r_max, 0.5, torch.device("cpu"))
    for _ in range(4):
        moving.atoms.positions += 0.02 * rng.normal(size=moving.atoms.positions.shape)
        moving.compare()
    assert moving.list.num_collections == moving.engine.num_prepared == 1
    moving.atoms.positions[0] += 0.4
    moving.compare()
    assert moving.list.num_collections == moving.engine.num_prepared == 2
    moving.atoms.set_cell(moving.atoms.cell * 1.01, scale_atoms=True)
    moving.compare()
    moving.atoms.numbers[0] = moving.atoms.numbers[-1]
    moving.compare()
    del moving.atoms[0]
    moving.compare()
    moving.list = VerletList(moving.potential.r_max, skin=0.4)  # another list, of the same number
    moving.compare()


def test_the_same_atoms_given_anew():
    """Equal types in other tensors do not prepare every step again."""
    moving = _Moving("no_parity")
    moving.compare()
    moving.other._types = None
    for _ in range(2):
        moving.compare()
        assert moving.engine._step.atoms.come_from(*moving.other._types[1:])
    assert moving.engine.num_prepared == 2


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad, torch.enable_grad])
def test_any_mode_of_autograd(mode):
    potential, data = compile(build_model(config("no_parity")), verify=False), inputs("crystals")
    expected = potential.evaluate(data)
    with mode():
        potential = compile(build_model(config("no_parity")), verify=False)
        given = {name: value.clone() for name, value in data.items()}
        if mode is torch.enable_grad:
            given["pos"].requires_grad_()
        found = on_device(potential).evaluate(given)
    for name, value in expected.items():
        assert not found[name].requires_grad
        assert relative_error(found[name], value) < 1e-12


@knows_ends
@pytest.mark.parametrize("radial", ["table"] if KERNELS == "cuda" else ["table", "exact"])
def test_room_for_more_pairs(monkeypatch, radial):
    """Sizes that do not depend on the edges, as a captured step has them; pairs then come and go in its memory."""
    moving = _Moving("preset_S")
    if radial == "exact":
        moving.potential = compile(build_model(config("preset_S")), radial="exact", dtype=torch.float64, verify=False)
        moving.other = on_device(moving.potential)
    monkeypatch.setattr(DeviceEngine, "_can_capture", lambda self: True)
    monkeypatch.setattr(engine_module._Step, "capture", lambda self: None)
    monkeypatch.setattr(engine_module, "_MULTIPLE", 8)
    moving.compare()
    step = moving.engine._step
    assert step.room % 8 == 0 < step.room - len(moving.list._pairs[1])
    moving.atoms.positions[0] += 0.4
    moving.compare()
    assert moving.list.num_collections == 2
    assert moving.engine._step is step
    moving.atoms.set_cell(moving.atoms.cell * 0.9, scale_atoms=True)  # more than there is room for
    moving.compare()
    assert moving.engine._step is not step


@pytest.mark.skipif(KERNELS != "cuda", reason="of kernels that know where edges end, Triton's interpreted are too slow")
def test_room_for_more_edges(monkeypatch):
    """Pairs come within the cutoff, more than a step was prepared for, and leave it again."""
    monkeypatch.setattr(DeviceEngine, "_can_capture", lambda self: True)
    monkeypatch.setattr(engine_module._Step, "capture", lambda self: None)
    monkeypatch.setattr(engine_module, "_MULTIPLE", 4)
    potential = compile(build_model(config("preset_S")), intervals=64, dtype=torch.float64, verify=False)
    engine, given, rooms = on_device(potential)._engine, crystal(1, 3, 4.0, 6, skin=2.0), []
    for scale in (1.3, 1.0, 0.75, 1.3):
        scaled = given._replace(positions=scale * given.positions, cells=scale * given.cells)
        found, expected = engine.evaluate(*scaled, kept="pairs"), potential._engine.evaluate(*scaled)
        for ours, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-11)
        rooms.append(engine._step.edge_room)
    assert rooms[0] < rooms[1] < rooms[2] == rooms[3] < engine._step.room
    assert engine.num_prepared == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pos": lambda x: x * float("nan")}, "not finite"),
        ({"pos": lambda x: x * 0, "edge_cell_shift": lambda x: x * 0}, "same place"),
        ({"atom_types": lambda x: x + 3}, "type"),
        ({"cell": lambda x: x * float("inf")}, "not finite"),
        ({"edge_index": lambda x: x + 100}, "pair|rise"),
        ({"edge_index": lambda x: torch.stack([x[0] + 100, x[1]])}, "pair|rise"),
    ],
)
def test_errors_are_those_of_the_engine_in_c(change, message):
    potential, data = compile(build_model(config("no_parity")), verify=False), inputs("crystals")
    wrong = data | {name: function(data[name]) for name, function in change.items()}
    for either in (potential, on_device(potential)):
        with pytest.raises(InputError, match=message):
            either.evaluate(wrong)
        assert torch.isfinite(either.evaluate(data)["forces"]).all()


def test_tensors_changed_in_place():
    """Types and structures that the caller overwrites between two calls."""
    potential, data = compile(build_model(config("no_parity")), verify=False), inputs("crystals")
    other = on_device(potential)
    other.evaluate(data)
    data["atom_types"][:] = data["atom_types"].flip(0)
    for name, expected in potential.evaluate(data).items():
        assert relative_error(other.evaluate(data)[name], expected) < 1e-12


def test_no_atoms():
    """Zeros everywhere, of every structure."""
    potential = compile(build_model(config("no_parity")), verify=False)
    for either in (potential, on_device(potential)):
        for found in either.batch([ase.Atoms(), ase.Atoms()]):
            assert found.energy == 0
            assert not found.virial.any()


def test_copies_of_a_list():
    pytest.importorskip("nvalchemiops")
    atoms, kept = crystals()[0], DeviceVerletList(3.0, 0.5, torch.device("cpu"))
    given = atoms.positions, atoms.cell.array, atoms.pbc
    expected = kept(*given)
    for again in (copy.deepcopy(kept), pickle.loads(pickle.dumps(kept))):
        assert all(torch.equal(a, b) for a, b in zip(again(*given), expected, strict=True))


def test_no_such_device():
    potential = compile(build_model(config("no_parity")), verify=False)
    assert potential.to("cpu") is potential
    for name in ("gpu", "meta", "mps"):
        with pytest.raises(InputError, match=name):
            potential.to(name)
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="no GPU"):
            potential.to("cuda")
