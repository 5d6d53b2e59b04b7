"""SevenNet models as sources of the inference engine.

A model of SevenNet is NequIP with other details: the type's embedding only enters before the first layer, the
self-connection may be a plain linear layer, sums over neighbours are divided by ``denominator``, the roots of the
Bessel functions are trained, and the cutoff function may be XPLOR's. In a multi-modal model linear layers also take the
one-hot modality; once that is chosen, its rows of their matrices are constants.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from e3nn.o3 import TensorProduct
from torch import Tensor, nn

from nequip_fast.data import keys
from nequip_fast.engine.interaction import (
    Gating,
    Interaction,
    Matrix,
    Place,
    linear_matrices,
    places,
    product_matrices,
    scalars,
)
from nequip_fast.engine.program import (
    Envelope,
    Layer,
    Program,
    RadialBasis,
    RadialNetwork,
    ReadoutLayer,
)
from nequip_fast.errors import InputError, nearest, require
from nequip_fast.files import load_checkpoint
from nequip_fast.integrations.copies import copied
from nequip_fast.nn.activation_names import name_by_value
from nequip_fast.ops import ConvProblem, GateProblem
from nequip_fast.ops.gate import NamedActivation

# the parts of a model that are understood, by name (behind the number of the layer) and class
_PARTS = {
    "edge_embedding": {"EdgeEmbedding"},
    "onehot_idx_to_onehot": {"OnehotEmbedding"},
    "one_hot_modality": {"OnehotEmbedding"},
    "onehot_to_feature_x": {"IrrepsLinear"},
    "self_connection_intro": {"SelfConnectionIntro", "SelfConnectionLinearIntro"},
    "self_interaction_1": {"IrrepsLinear"},
    "convolution": {"IrrepsConvolution"},
    "self_interaction_2": {"IrrepsLinear"},
    "self_connection_outro": {"SelfConnectionOutro"},
    "equivariant_gate": {"EquivariantGate"},
    "reduce_input_to_hidden": {"IrrepsLinear"},
    "reduce_hidden_to_energy": {"IrrepsLinear"},
    "readout_FCN": {"FCN_e3nn"},
    "rescale_atomic_energy": {"Rescale", "SpeciesWiseRescale", "ModalWiseRescale"},
    "reduce_total_enegy": {"AtomReduce"},
    "force_output": {"ForceStressOutputFromEdge", "ForceStressOutput", "ForceOutput"},
}


def is_model(model: object) -> bool:
    """Whether it is a model of SevenNet; does not import the package."""
    return any(f"{t.__module__}.{t.__name__}" == "sevenn.nn.sequential.AtomGraphSequential" for t in type(model).mro())


def load(path: str | os.PathLike[str], trust: bool = False, modal: str | None = None) -> SevenNet:
    """The model of a checkpoint of SevenNet (``.pth``).

    Args:
        modal: which modality, of a multi-modal model.
        trust: unpickle objects where the file holds more than tensors, arrays and plain containers. A pickle can run
            any code: say True only for files whose origin you trust. SevenNet's own models need no trust.

    Raises:
        InputError: the file cannot be read, needs ``trust=True``, or holds a model that cannot be compiled.
        MissingExtra: sevenn is not installed.
    """
    content = load_checkpoint(path, trust, _arrays())
    if not {"config", "model_state_dict"} <= set(content):
        raise InputError(f"{path}: not a checkpoint of SevenNet (no config and model_state_dict)")
    require("sevenn", "sevennet")
    checkpoint = require("sevenn.checkpoint", "sevennet").SevenNetCheckpoint(path)
    try:
        model = checkpoint.build_model()
    except (AssertionError, AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(f"{path}: SevenNet cannot build its model ({type(error).__name__}: {error})") from None
    return SevenNet(model, modal)


def _arrays() -> list[Any]:
    """What a pickled array of numbers is made of, under the names of numpy 1 and 2."""
    numbers = ("float32", "float64", "int32", "int64", "bool")
    reconstruct = np.empty(0).__reduce__()[0]
    names = [f"numpy.{core}.multiarray._reconstruct" for core in ("core", "_core")]
    return [*((reconstruct, name) for name in names), np.ndarray, np.dtype, *(type(np.dtype(name)) for name in numbers)]


class SevenNet:
    """A model of SevenNet as a source; the model itself is not changed.

    Args:
        model: as SevenNet builds it.
        modal: which modality, of a multi-modal model.

    Attributes:
        type_names: chemical symbols by index.
        r_max: cutoff, Å.
        dtype: of the network.
        cutoffs: None, one cutoff for all.

    Raises:
        InputError: the model has a part that the engine does not know, or ``modal`` is none of its modalities.
    """

    cutoffs: Mapping[str, Any] | None = None

    def __init__(self, model: Any, modal: str | None = None) -> None:
        _check_parts(model)
        self._modal = _modal_index(model, modal)
        self.dtype = model.onehot_to_feature_x.linear.weight.dtype
        self._model: Any = copied(model).cpu().double().eval()
        self._model.set_is_batch_data(True)
        self._model.eval_type_map = True
        self._model.eval_modal_map = False  # it gets the number
        self._model.onehot_idx_to_onehot.register_forward_hook(_one_hot_in_float64)
        symbols = require("ase.data", "md").chemical_symbols
        by_index = {int(index): int(number) for number, index in self._model.type_map.items()}
        if sorted(by_index) != list(range(self._model.onehot_idx_to_onehot.num_classes)):
            raise InputError("a SevenNet model whose type_map does not number its types from zero cannot be compiled")
        self._numbers = torch.tensor([by_index[index] for index in sorted(by_index)])
        self.type_names = [symbols[number] for number in self._numbers.tolist()]
        self.r_max = float(self._model.cutoff)

    def evaluate(self, graph: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Energy [B, 1], forces [N, 3] and stress [B, 3, 3] by SevenNet itself, run in float64.

        In float32 its forces are uncertain to some 1e-5 of the largest.
        """
        edges, types = graph[keys.EDGE_INDEX], graph[keys.ATOM_TYPES].reshape(-1)
        batch = graph.get(keys.BATCH, torch.zeros_like(types))
        vectors = graph[keys.POSITIONS][edges[1]] - graph[keys.POSITIONS][edges[0]]
        volumes = torch.zeros(int(batch.max()) + 1, dtype=torch.float64)
        if keys.CELL in graph:
            cells = graph[keys.CELL].reshape(-1, 3, 3)
            vectors = vectors + torch.einsum("ei,eij->ej", graph[keys.EDGE_CELL_SHIFT], cells[batch[edges[0]]])
            volumes = torch.linalg.det(cells).abs()
        with torch.enable_grad():
            output = self._model(
                {
                    "x": types,
                    "atomic_numbers": self._numbers[types],
                    "edge_index": edges,
                    "edge_vec": vectors,
                    "batch": batch,
                    "num_atoms": torch.bincount(batch),
                    "modal_type": torch.full_like(volumes, self._modal or 0, dtype=torch.int64),
                    "cell_volume": volumes.clone(),  # SevenNet writes into it
                }
            )
        stress = -output["inferred_stress"].detach()  # xx, yy, zz, xy, yz, zx
        stress = stress[:, [0, 3, 5, 3, 1, 4, 5, 4, 2]].unflatten(1, (3, 3))
        return {
            keys.TOTAL_ENERGY: output["inferred_total_energy"].detach().unsqueeze(1),
            keys.FORCES: output["inferred_force"].detach(),
            keys.STRESS: torch.where(volumes[:, None, None] > 0, stress, torch.nan),
        }

    def program(self) -> Program:
        """The model as the engine takes it, float64 and exact."""
        model, types = self._model, len(self.type_names)
        basis, l_max = _edges(model.edge_embedding, self.r_max)
        embedding = _embedding(model.onehot_to_feature_x, self._modal)
        if self._modal is not None:
            embedding = torch.cat([embedding, torch.ones(types, 1, dtype=torch.float64)], 1)
        features: Sequence[Place] = [Place(0, embedding.shape[1], 0)]
        layers: list[Layer] = []
        while f"{len(layers)}_convolution" in model._modules:
            interaction = _interaction(model, len(layers), types, self._modal)
            if _layout(features) != _layout(places(interaction.row)):
                irreps = interaction.irreps_in
                raise InputError(
                    f"a SevenNet model with features {irreps}, not in the order of its gates, cannot be compiled"
                )
            layers.append(interaction.layer(features))
            features = interaction.after
        energy = model.rescale_atomic_energy
        scale, shift = (self._of_modality(values) for values in (energy.scale, energy.shift))
        return Program(
            type_names=self.type_names,
            cutoff=torch.full((types, types), self.r_max, dtype=torch.float64),
            l_max=l_max,
            embedding=embedding,
            basis=basis,
            layers=layers,
            readout=_readout(model, features, self._modal),
            scale=scale.expand(types).clone(),
            shift=shift.expand(types).clone(),
        )

    def _of_modality(self, values: Tensor) -> Tensor:
        """Those of all types, or one number, of the values that may be given by modality."""
        return _double(values[self._modal] if values.dim() == 2 else values)


def _one_hot_in_float64(_module: nn.Module, _inputs: Any, data: dict[str, Tensor]) -> None:
    """SevenNet makes it float32 whatever the precision of the model."""
    for key in ("x", "node_attr"):
        data[key] = data[key].double()


def _check_parts(model: Any) -> None:
    """Refuse, by name, what is not understood."""
    if not getattr(model, "type_map", None):
        raise InputError("a SevenNet model without a type_map cannot be compiled: its elements are unknown")
    for name, part in model.named_children():
        kind = type(part).__name__
        if kind not in _PARTS.get(re.sub(r"^\d+_", "", name), set()):
            raise InputError(f"a SevenNet model with the part {name!r} ({kind}) cannot be compiled")
        if name.endswith("_convolution") and type(part.convolution) is not TensorProduct:
            raise InputError(
                "a SevenNet model that runs on cuEquivariance, FlashTP or OpenEquivariance cannot be compiled; build "
                "it with enable_cueq, enable_flash and enable_oeq off"
            )
        if getattr(part, "constant", 1.0) != 1.0:
            raise InputError(f"a SevenNet model that multiplies its energy by {part.constant} cannot be compiled")
        if any(bias.numel() for key, bias in part.named_parameters() if key.endswith("linear.bias")):
            raise InputError("a SevenNet model with use_bias_in_linear cannot be compiled")
    missing = {"edge_embedding", "onehot_to_feature_x", "0_convolution", "rescale_atomic_energy"} - set(model._modules)
    if missing:
        raise InputError(
            f"a SevenNet model without {', '.join(sorted(missing))} cannot be compiled; give the whole model"
        )


def _modal_index(model: Any, modal: str | None) -> int | None:
    """The number of a modality; None if the model has none."""
    modalities = dict(getattr(model, "modal_map", None) or {})
    if not modalities:
        if modal is not None:
            raise InputError(f"modal={modal!r}: the model is not multi-modal; leave it out")
        return None
    listed = ", ".join(modalities)
    if modal is None:
        raise InputError(f"the SevenNet model is multi-modal ({listed}); say which of these is wanted as modal=...")
    if modal not in modalities:
        raise InputError(f"modal={modal!r} is none of the model's modalities, {listed}{nearest(modal, modalities)}")
    return int(modalities[modal])


def _edges(embedding: Any, r_max: float) -> tuple[RadialBasis, int]:
    """The radial basis and the degree of the harmonics."""
    bessel, cutoff, harmonics = embedding.basis_function, embedding.cutoff_function, embedding.spherical
    kinds = tuple(type(part).__name__ for part in (bessel, cutoff, harmonics))
    if kinds == ("BesselBasis", "PolynomialCutoff", "SphericalEncoding"):
        length, envelope = cutoff.cutoff_length, Envelope("polynomial", float(cutoff.p))
    elif kinds == ("BesselBasis", "XPLORCutoff", "SphericalEncoding"):
        length, envelope = cutoff.r_cut, Envelope("xplor", cutoff.r_on / cutoff.r_cut)
    else:
        raise InputError(f"a SevenNet model with the edge embedding {', '.join(kinds)} cannot be compiled")
    if length != r_max:
        raise InputError(f"a SevenNet model with cutoffs of {length} Å and {r_max} Å cannot be compiled")
    l_max = harmonics.lmax
    if not harmonics.sph.normalize or harmonics.normalization != "component":
        raise InputError(
            "a SevenNet model whose harmonics grow with the distance (_normalize_sph: False) cannot be compiled"
        )
    # sin(c r) / r with r = x r_max
    return RadialBasis(_double(bessel.coeffs) * r_max, bessel.prefactor / r_max, envelope), l_max


def _embedding(part: Any, modal: int | None) -> Tensor:
    """[types, scalars]"""
    irreps = part.linear.irreps_out
    if {str(ir) for _, ir in irreps} != {"0e"}:
        raise InputError(f"a SevenNet model that starts with features {irreps} cannot be compiled")
    matrices, constants = _matrices(part, modal)
    rows = torch.cat([matrix for _, _, matrix in matrices], 1)
    return rows + torch.cat([row for _, _, row in constants], 1) if constants else rows


def _matrices(part: Any, modal: int | None) -> tuple[list[Matrix], list[Matrix]]:
    """Of an ``IrrepsLinear`` between its features, and the rows [1, mul] of the modality, whose block is the last."""
    matrices, last = linear_matrices(part.linear), len(part.linear.irreps_in) - 1
    if modal is None or part.num_modalities < 2:
        return matrices, []
    return (
        [(i, j, matrix) for i, j, matrix in matrices if i != last],
        [(i, j, matrix[modal : modal + 1]) for i, j, matrix in matrices if i == last],
    )


def _interaction(model: Any, index: int, types: int, modal: int | None) -> Interaction:
    """Layer number ``index``."""
    part = {name: model._modules.get(f"{index}_{name}") for name in _PARTS}
    intro, convolution = part["self_connection_intro"], part["convolution"]
    product = convolution.convolution
    first, sent = _matrices(part["self_interaction_1"], modal)
    second, added = _matrices(part["self_interaction_2"], modal)
    if type(intro).__name__ == "SelfConnectionLinearIntro":
        connection = linear_matrices(intro.linear)
    else:
        connection = product_matrices(intro.fc_tensor_product, torch.eye(types, dtype=torch.float64))
    irreps_in = part["self_interaction_1"].linear.irreps_out
    one = len(irreps_in)  # the block that carries constants
    matrices, activation = _perceptron(convolution.weight_nn)
    return Interaction(
        irreps_in=irreps_in,
        first=[*first, *((one, j, row) for _, j, row in sent)],
        factor=1 / float(convolution.denominator.detach()),
        convolution=ConvProblem.from_irreps(
            product.irreps_in1,
            product.irreps_in2,
            product.irreps_out,
            # e3nn has taken the square root of these, and normalised them
            [(i.i_in1, i.i_in2, i.i_out, "uvu", True, i.path_weight**2) for i in product.instructions],
            irrep_normalization="none",
            path_normalization="none",
        ),
        radial=RadialNetwork(matrices, *activation),
        irreps_summed=product.irreps_out.simplify(),
        second=second,
        connection=[*connection, *((one, j, row) for _, j, row in added)],
        irreps_out=part["self_interaction_2"].linear.irreps_out,
        gating=_gating(part["equivariant_gate"].gate),
        constants=modal is not None,
    )


def _gating(gate: Any) -> Gating:
    """Of an ``e3nn.nn.Gate``."""
    problem = GateProblem.from_irreps(
        gate.act_scalars.irreps_in,
        [_activation(act) for act in gate.act_scalars.acts],
        gate.act_gates.irreps_in,
        [_activation(act) for act in gate.act_gates.acts],
        gate.irreps_gated,
    )
    return Gating.of_segments(problem.segments)


def _layout(segments: Sequence[Place]) -> list[tuple[int, int]]:
    """(offset, degree) of every channel."""
    return [(place.start + u * (2 * place.l + 1), place.l) for place in segments for u in range(place.mul)]


def _readout(model: Any, features: Sequence[Place], modal: int | None) -> list[ReadoutLayer]:
    if "readout_FCN" in model._modules:
        matrices, (name, constant) = _perceptron(model.readout_FCN.fcn)
        by_modality = False
    else:
        matrices = [_product(model.reduce_input_to_hidden, model.reduce_hidden_to_energy)]
        name, constant = "identity", 1.0
        by_modality = model.reduce_input_to_hidden.num_modalities > 1
    if modal is not None:  # a row for the channel that carries constants
        plain = matrices[0].shape[0] - (len(model.modal_map) if by_modality else 0)
        row = matrices[0][plain + modal] if by_modality else torch.zeros_like(matrices[0][0])
        matrices[0] = torch.cat([matrices[0][:plain], row.unsqueeze(0)])
    *hidden, last = [matrices[0][scalars(features)], *(constant * matrix for matrix in matrices[1:])]
    return [*(ReadoutLayer(matrix, name) for matrix in hidden), ReadoutLayer(last)]


def _product(hidden: Any, energy: Any) -> Tensor:
    """Two linear layers between scalars as one matrix."""
    matrices = []
    for linear in (hidden.linear, energy.linear):
        blocks, columns = places(linear.irreps_in), places(linear.irreps_out)
        matrix = torch.zeros(linear.irreps_in.dim, linear.irreps_out.dim, dtype=torch.float64)
        for i, j, part in linear_matrices(linear):
            matrix[blocks[i].start : blocks[i].end, columns[j].start : columns[j].end] += part
        matrices.append(matrix)
    return matrices[0] @ matrices[1]


def _perceptron(network: Any) -> tuple[list[Tensor], NamedActivation]:
    """Matrices of an ``e3nn.nn.FullyConnectedNet``, and the activation between them."""
    layers = list(network)
    matrices = [_double(layer.weight) * (layer.var_out / (layer.h_in * layer.var_in)) ** 0.5 for layer in layers]
    if any((layer.act is None) != (layer is layers[-1]) or layer.var_out != 1 for layer in layers):
        raise InputError(f"a SevenNet model with {network} cannot be compiled")
    return matrices, _activation(layers[0].act)


def _activation(act: Any) -> NamedActivation:
    """(name, constant) of e3nn's ``normalize2mom``, or of None."""
    if act is None:
        return "identity", 1.0
    name = name_by_value(act.f)
    if name is not None:
        return name, 1.0 if act._is_id else act.cst
    raise InputError(f"a SevenNet model with the activation {getattr(act.f, '__name__', act.f)} cannot be compiled")


def _double(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", torch.float64, copy=True)
