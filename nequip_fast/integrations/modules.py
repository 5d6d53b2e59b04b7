"""Modules of nequip, SevenNet and e3nn on our operators, for :func:`accelerate`: what is no drop-in of our own.

nequip and SevenNet gather features, multiply with e3nn's ``TensorProduct`` and scatter the products. That product stays
where it is, with its buffers, for the state dict; its instructions say what to compute.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from nequip_fast import o3
from nequip_fast.adoption import Adoptable
from nequip_fast.errors import InputError
from nequip_fast.nn.activation_names import name_by_value
from nequip_fast.nn.fully_connected_net import FullyConnectedNet
from nequip_fast.ops import ConvProblem, Graph, MlpLayer, MlpProblem, backend, conv, first_of_pair, mlp
from nequip_fast.ops.radial import radial

# nequip writes it into the files of nequip-compile, and imports it before it loads one
_OPERATORS = ("nequip_fast",)


class TensorProductScatter(Adoptable, nn.Module):
    """nequip's module of this name."""

    _nequip_custom_ops_libs = _OPERATORS
    tp: Any
    problem: ConvProblem

    def _prepare(self) -> None:
        self.problem = problem_of(self.tp)

    def forward(self, x: Tensor, edge_attr: Tensor, edge_weight: Tensor, edge_dst: Tensor, edge_src: Tensor) -> Tensor:
        """x [N, in], edge_attr [E, sh], edge_weight [E, weights] of edges ``edge_src`` → ``edge_dst`` → [N, out]."""
        graph = Graph.from_ends(edge_dst, edge_src, x.shape[0])
        return conv(x, edge_attr.to(x), edge_weight.to(x), graph, self.problem)  # autocast may have made them others


class IrrepsConvolution(Adoptable, nn.Module):
    """SevenNet's module of this name, in one process or, with ghost atoms, in one of many."""

    parts_in_use = ("weight_nn",)
    whole: tuple[nn.Module, ...] = ()  # the model that this is a part of, hidden from torch's list of submodules
    convolution: Any
    weight_nn: Any
    denominator: Tensor
    key_x: str
    key_filter: str
    key_weight_input: str
    key_edge_idx: str
    is_parallel: bool
    problem: ConvProblem

    def _prepare(self) -> None:
        if self.convolution is None:
            raise InputError("it has no layers yet; build the model first")
        self.problem = problem_of(self.convolution)

    def forward(self, data: dict[str, Tensor]) -> dict[str, Tensor]:
        """As SevenNet's: reads edges, features and filters of ``data`` and writes the features."""
        x, radial = data[self.key_x], data[self.key_weight_input]
        if self.is_parallel:
            x = torch.cat([x, data["x_ghost"]])
        graph = Graph.from_edge_index(data[self.key_edge_idx], x.shape[0])
        if isinstance(self.weight_nn, FullyConnectedNet):
            if "edge_vec" in data and not hasattr(radial, _FIRST_OF_PAIR):  # the first layer to ask
                vectors = data["edge_vec"]
                _say_pairs(radial, graph, vectors.detach() if self._sums_pairs() else vectors, data["edge_length"])
            weight = self.weight_nn(radial, getattr(radial, _FIRST_OF_PAIR, None))
        else:
            weight = self.weight_nn(radial)
        x = conv(x, data[self.key_filter].to(x), weight.to(x), graph, self.problem).div(self.denominator)
        data[self.key_x] = torch.tensor_split(x, data["nlocal"])[0] if self.is_parallel else x
        return data

    def _sums_pairs(self) -> bool:
        """Whether gradients by the vectors of edges are to become forces and stress, sums over both edges of a pair.

        As long as the model makes them so; what LAMMPS gets, and virials of atoms, know edges one by one.
        """
        asked = [
            m.use_atomic_virial for model in self.whole for m in model.modules() if hasattr(m, "use_atomic_virial")
        ]
        return bool(asked) and not any(asked)


class ScalarMLPFunction(Adoptable, nn.Module):
    """nequip's module of this name: all layers in one pass, and their derivatives."""

    _nequip_custom_ops_libs = _OPERATORS
    mlp: Any

    def _prepare(self) -> None:
        self._problem: MlpProblem | None = None  # one matrix, a product of some, biases, an activation without kernel
        modules: list[Any] = list(self.mlp) if isinstance(self.mlp, nn.Sequential) else []
        linear, names = modules[::2], [name_by_value(module) for module in modules[1::2]]
        plain = all(hasattr(module, "alpha") and getattr(module, "bias", None) is None for module in linear)
        if plain and len(names) + 1 == len(linear) > 1 and None not in names:
            activations = [*map(str, names), "identity"]
            layers = [
                MlpLayer(module.out_features, name, float(module.alpha))
                for module, name in zip(linear, activations, strict=True)
            ]
            self._problem = MlpProblem(linear[0].in_features, layers)

    def _compare(self, original: type[nn.Module]) -> None:
        weight = next(self.parameters())
        x = torch.linspace(-1, 1, 3 * weight.shape[0]).to(weight).view(3, -1)
        _require_equal(self.forward(x), original.forward(self, x))

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] → [..., out]"""
        if self._problem is None:
            return self.mlp(x)
        weights = [module.weight for module in list(self.mlp)[::2]]
        return mlp(x, weights, self._problem, getattr(x, _FIRST_OF_PAIR, None))


class BesselEdgeLengthEncoding(Adoptable, nn.Module):
    """nequip's module of this name, with its polynomial cutoff function."""

    _nequip_custom_ops_libs = _OPERATORS
    cutoff: Any
    bessel_weights: Tensor
    norm_length_field: str
    edge_invariant_field: str
    _output_dtype: torch.dtype

    def _prepare(self) -> None:
        if type(self.cutoff).__name__ != "PolynomialCutoff":
            raise InputError(f"its cutoff function is {type(self.cutoff).__name__}, not PolynomialCutoff")
        self._p = float(self.cutoff.p)

    def _compare(self, original: type[nn.Module]) -> None:
        x = torch.linspace(0.01, 1.1, 50).to(self.bessel_weights).view(-1, 1)
        found, expected = self.forward({self.norm_length_field: x}), original.forward(self, {self.norm_length_field: x})
        if found.keys() != expected.keys():
            raise InputError(f"this version of it writes {', '.join(expected)}")
        _require_equal(found[self.edge_invariant_field], expected[self.edge_invariant_field])

    def forward(self, data: dict[str, Tensor]) -> dict[str, Tensor]:
        """As nequip's: reads the edges' lengths over the cutoff and writes their radial features."""
        x = data[self.norm_length_field]
        data["edge_cutoff"] = self.cutoff(x).to(self._output_dtype)
        roots = self.bessel_weights.squeeze(0).double()
        # nequip has sinc(n x) n = sin(π n x) / (π x)
        features = radial(x.double(), roots, self._p, 1.0, self._output_dtype)
        data[self.edge_invariant_field] = features
        # vectors that nequip has made of positions; others are differentiated by one by one
        if x.device.type == "cpu" and {"pos", "edge_vectors", "edge_index", "atom_types"} <= data.keys():
            graph = Graph.from_edge_index(data["edge_index"], data["atom_types"].shape[0])
            _say_pairs(features, graph, data["edge_vectors"], x)
        return data


class ApplyFactor(Adoptable, nn.Module):
    """nequip's module of this name: what is known of radial features is so of their multiples."""

    _nequip_custom_ops_libs = _OPERATORS
    in_field: str
    out_field: str
    factor: float

    def _prepare(self) -> None:
        self.factor = float(self.factor)

    def forward(self, data: dict[str, Tensor]) -> dict[str, Tensor]:
        """As nequip's: a field times a number."""
        before = data[self.in_field]
        data[self.out_field] = self.factor * before
        if hasattr(before, _FIRST_OF_PAIR):
            setattr(data[self.out_field], _FIRST_OF_PAIR, getattr(before, _FIRST_OF_PAIR))
        return data


class NodeTypeEmbed(Adoptable, nn.Module):
    """nequip's module of this name, without fields of the structure: its rows are remembered with what it writes."""

    embed_module: Any
    set_features: bool

    def _prepare(self) -> None:
        if getattr(self, "do_categorical_graph_field_embed", False):
            raise InputError("it embeds fields of the structure as well")

    def _compare(self, original: type[nn.Module]) -> None:
        types = torch.arange(self.embed_module.weight.shape[0], device=self.embed_module.weight.device)
        found, expected = self.forward({"atom_types": types}), original.forward(self, {"atom_types": types})
        if found.keys() != expected.keys():
            raise InputError(f"this version of it writes {', '.join(expected)}")
        for name in found.keys() - {"atom_types"}:
            _require_equal(found[name], expected[name])

    def forward(self, data: dict[str, Tensor]) -> dict[str, Tensor]:
        """As nequip's: reads the types of atoms and writes their attributes."""
        row, table = data["atom_types"].view(-1), self.embed_module.weight
        known = backend.can("attributes", "cpu", table) and not torch.compiler.is_compiling()
        if known and backend.traced():  # a graph takes no number of rows that depends on values
            known = table.shape[0] <= _MOST_ROWS_TRACED
        elif known:
            present, row = torch.unique(row, return_inverse=True)
            table = table.index_select(0, present)
        values = table.index_select(0, row)
        if known and not values.is_inference():
            setattr(values, _ROWS_OF_TABLE, (table, row, values._version))
        data["node_attrs"] = values
        if self.set_features:
            data["node_features"] = values
        return data


class FullyConnectedTensorProduct(o3.FullyConnectedTensorProduct):
    """e3nn's module of this name, with attributes that are rows of a table where they are known to be."""

    def forward(self, x: Tensor, y: Tensor, weight: Tensor | list[Tensor] | None = None) -> Tensor:
        """As of :class:`~nequip_fast.o3.TensorProduct`."""
        rows = _rows_of_table(y) if weight is None and x.dim() == 2 else None
        return super().forward(x, y, weight) if rows is None else self.with_rows(x, *rows)


# an attribute of a tensor of atoms' attributes: the different rows, which is whose, and the version of which this holds
_ROWS_OF_TABLE = "rows_of_table"
_MOST_ROWS_TRACED = 16  # of which some may be nobody's


def _rows_of_table(y: Tensor) -> tuple[Tensor, Tensor] | None:
    """(table, row) of y, or of the tensor whose first rows y is a view of, as nequip leaves ghost atoms out."""
    if torch.compiler.is_compiling() or y.is_inference():
        return None
    whole = y if hasattr(y, _ROWS_OF_TABLE) else y._base
    if whole is None or not hasattr(whole, _ROWS_OF_TABLE):
        return None
    table, row, version = getattr(whole, _ROWS_OF_TABLE)
    of_y, of_whole = ((t.storage_offset(), t.stride(), t.shape[1:], t.grad_fn is None) for t in (y, whole))
    same = of_y == of_whole  # a view that was made without gradients is to have none
    return (table, row[: y.shape[0]]) if same and whole._version == version else None


# an attribute of a tensor of radial features, for the modules that get this very tensor: the packages hand them nothing
# else, and what has been made of it since may depend on more than the length
_FIRST_OF_PAIR = "first_of_pair"


def _say_pairs(radial: Tensor, graph: Graph, vectors: Tensor, x: Tensor) -> None:
    if not torch.compiler.is_compiling():  # which knows no attributes of tensors
        setattr(radial, _FIRST_OF_PAIR, first_of_pair(graph, vectors, x.to(vectors)))


def _require_equal(found: Tensor, expected: Tensor) -> None:
    tolerance = 1e-10 if expected.dtype == torch.float64 else 1e-4
    size = float(expected.detach().abs().max())
    if found.shape != expected.shape or not float((found - expected).detach().abs().max()) <= tolerance * size:
        raise InputError("this version of it computes something else")


def problem_of(product: Any) -> ConvProblem:
    """The convolution with an ``e3nn.o3.TensorProduct``, whose weights are a row for each edge.

    Raises:
        InputError: it has weights of its own, or an instruction that is not 'uvu'.
    """
    if product.shared_weights:
        raise InputError("its product has the same weights for all edges")
    return ConvProblem.from_irreps(
        str(product.irreps_in1),
        str(product.irreps_in2),
        str(product.irreps_out),
        # e3nn has taken the square root of these, and normalised them
        [(*i[:5], i.path_weight**2) for i in product.instructions],
        irrep_normalization="none",
        path_normalization="none",
    )
