"""What nequip's commands ask of our models: the same answers as from nequip's."""

from __future__ import annotations

import pytest
import torch
import yaml
from torch.fx.experimental.proxy_tensor import make_fx
from torch.package import PackageExporter, PackageImporter

from nequip_fast.model import build_model, from_nequip_checkpoint, from_nequip_package
from tests.model.model_cases import (
    TYPES,
    build_oracle,
    call,
    config,
    crystals,
    graph,
    inputs,
    relative_error,
)


@pytest.mark.parametrize("case", ["parity", "graph_field", "zbl_real_units_and_cutoffs", "preset_S"])
def test_facts_and_irreps(case):
    theirs, ours = build_oracle(config(case)), build_model(config(case))
    assert ours.metadata == {**theirs.metadata, "nequip_custom_ops_libs": "nequip_fast"}
    assert ours.type_names == theirs.type_names
    assert ours.model_dtype == theirs.model_dtype
    assert ours.is_graph_model
    assert ours.is_compile_graph_model == theirs.is_compile_graph_model
    for found, expected in ((ours.irreps_in, theirs.irreps_in), (ours.irreps_out, theirs.irreps_out)):
        assert {name: str(irreps) for name, irreps in found.items()} == {
            name: str(irreps) for name, irreps in expected.items() if name in found
        }
    assert set(ours.model_input_fields) <= set(theirs.model_input_fields)


@pytest.mark.parametrize("derivatives", [True, False])
def test_results_hold_the_inputs_and_no_labels(derivatives):
    """A batch for training has labels under the names of results: where the model gives none, there are none."""
    model = build_model({**config("graph_field"), "do_derivatives": derivatives})
    data = inputs("crystals")
    results = model({**data, "forces": torch.full((2, 3), 7.0), "total_energy": torch.full((2, 1), 7.0)})
    assert set(results) == set(data) | {"total_energy", "atomic_energy"} | (
        {"forces", "stress", "virial"} if derivatives else set()
    )
    assert all(results[name] is data[name] for name in data)
    assert 7.0 not in results["total_energy"]
    assert set(results) == set(model.irreps_out)


def test_in_a_package(tmp_path):
    """Settings and weights are in it, and none of our code."""
    model = build_model(config("zbl_real_units_and_cutoffs")).eval()
    with torch.no_grad():
        model.type_embed.embed_module.weight.add_(0.1)
    with PackageExporter(tmp_path / "package.zip") as exporter:
        exporter.extern("nequip_fast.**")
        exporter.save_pickle("model", "model.pkl", torch.nn.ModuleDict({"one": model, "other": model}))
    importer = PackageImporter(tmp_path / "package.zip")
    assert "nequip_fast" not in str(importer.file_structure())
    loaded = importer.load_pickle("model", "model.pkl")
    assert loaded["one"] is loaded["other"]
    assert not loaded["one"].training
    data = inputs("crystals")
    assert torch.equal(loaded["one"](data)["forces"], model(data)["forces"])


def test_what_nequip_trained_is_read_again(tmp_path):
    """Checkpoints and packages as nequip writes them, of a model that its configuration calls ours."""
    settings = config("zbl_real_units_and_cutoffs", "float32")
    model = build_model(settings).eval()
    named = {
        "_target_": f"nequip_fast.model.{settings['builder']}",
        **{k: v for k, v in settings.items() if k != "builder"},
    }
    info = {"training_module": {"model": named}, "versions": {"nequip": "0.19.1"}}
    modules = torch.nn.ModuleDict({"sole_model": model})
    weights = {f"model.{name}": value for name, value in modules.state_dict().items()}
    torch.save({"state_dict": weights, "hyper_parameters": {"info_dict": info}}, tmp_path / "last.ckpt")
    with PackageExporter(tmp_path / "model.nequip.zip") as exporter:
        exporter.extern("nequip_fast.**")
        exporter.save_text("model", "config.yaml", yaml.dump(info))
        exporter.save_text("model", "package_metadata.txt", yaml.dump(info))
        exporter.save_pickle("model", "eager_model.pkl", modules)
    data = inputs("crystals")
    for read in (from_nequip_checkpoint(tmp_path / "last.ckpt"), from_nequip_package(tmp_path / "model.nequip.zip")):
        assert torch.equal(read(data)["forces"], model(data)["forces"])


def test_traced_by_make_fx():
    """As nequip-compile does it: with the forces in the graph, for other numbers of atoms and edges."""
    model = build_model(config("parity")).eval().requires_grad_(False)
    names = ["pos", "edge_index", "atom_types", "cell", "edge_cell_shift"]

    def forces_and_stress(*tensors):
        results = model(dict(zip(names, tensors, strict=True)))
        return results["forces"], results["stress"]

    small, large = (graph(atoms) for atoms in crystals())
    trace = make_fx(forces_and_stress, tracing_mode="symbolic", _allow_non_fake_inputs=True)
    traced = trace(*(large[name] for name in names))
    assert large["pos"].shape != small["pos"].shape
    forces, stress = traced(*(small[name] for name in names))
    expected = call(model, small)
    assert relative_error(forces, expected["forces"]) < 1e-12
    assert relative_error(stress, expected["stress"]) < 1e-12


def test_errors_are_found_before_and_after_a_trace():
    """Values are checked whenever nothing traces: an earlier trace leaves nothing behind."""
    model = build_model(config("parity")).eval()
    make_fx(torch.sin, tracing_mode="symbolic")(torch.ones(2))
    data = graph(crystals()[0])
    data["atom_types"][0] = len(TYPES)
    with pytest.raises(ValueError, match="unknown to this model"):
        model(data)
