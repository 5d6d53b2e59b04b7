"""The network of nequip 0.5 and 0.6 from e3nn's modules, under the names that its files have.

Three layers; its outputs were compared with those of nequip 0.5.6 and 0.6.2 through the conversion that is tested.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from e3nn import nn as e3nn_nn
from e3nn import o3
from torch import Tensor, nn

from nequip_fast.nn.interaction import path_exists
from nequip_fast.ops.radial import polynomial_cutoff

SETTINGS: dict[str, Any] = {
    "nequip_version": "0.6.2",
    "model_builders": [
        "SimpleIrrepsConfig",
        "EnergyModel",
        "PerSpeciesRescale",
        "StressForceOutput",
        "RescaleEnergyEtc",
        "initialize_from_state",
    ],
    "default_dtype": "float64",
    "model_dtype": "float64",
    "chemical_symbols": ["O", "H"],
    "r_max": 3.5,
    "num_layers": 3,
    "l_max": 2,
    "parity": True,
    "num_features": 4,
    "nonlinearity_scalars": {"e": "ssp", "o": "tanh"},
    "nonlinearity_gates": {"e": "silu", "o": "abs"},
    "num_basis": 6,
    "PolynomialCutoff_p": 5,
    "invariant_layers": 2,
    "invariant_neurons": 7,
    "avg_num_neighbors": 5.3,
}
TYPES = ["H", "O"]
_SCALE, _SCALES, _SHIFTS = 2.5, (1.1, 0.7), (-1.0, 0.4)


def _ssp(x: Tensor) -> Tensor:
    return torch.nn.functional.softplus(x) - math.log(2.0)


def _named(**children: nn.Module) -> nn.Module:
    module = nn.Module()
    for name, child in children.items():
        module.add_module(name, child)
    return module


class Convolution(nn.Module):
    """``conv`` of a layer."""

    def __init__(self, irreps_in: o3.Irreps, harmonics: o3.Irreps, irreps_out: o3.Irreps, sc: bool) -> None:
        super().__init__()
        middle, instructions = [], []
        for i, (mul, ir_in) in enumerate(irreps_in):
            for j, (_, ir_edge) in enumerate(harmonics):
                for ir in ir_in * ir_edge:
                    if ir in irreps_out:
                        instructions.append((i, j, len(middle)))
                        middle.append((mul, ir))
        irreps, position, _ = o3.Irreps(middle).sort()
        paths = [(i, j, position[k], "uvu", True) for i, j, k in instructions]
        self.linear_1 = o3.Linear(irreps_in, irreps_in)
        self.tp = o3.TensorProduct(irreps_in, harmonics, irreps, paths, shared_weights=False, internal_weights=False)
        hidden = SETTINGS["invariant_layers"] * [SETTINGS["invariant_neurons"]]
        self.fc = e3nn_nn.FullyConnectedNet([SETTINGS["num_basis"], *hidden, self.tp.weight_numel], _ssp)
        self.linear_2 = o3.Linear(irreps.simplify(), irreps_out)
        self.has_sc = sc
        self.sc = o3.FullyConnectedTensorProduct(irreps_in, f"{len(TYPES)}x0e", irreps_out)

    def forward(self, x: Tensor, one_hot: Tensor, basis: Tensor, y: Tensor, edges: Tensor) -> Tensor:
        messages = self.tp(self.linear_1(x)[edges[1]], y, self.fc(basis)) / SETTINGS["avg_num_neighbors"] ** 0.5
        out = self.linear_2(messages.new_zeros(len(x), messages.shape[1]).index_add(0, edges[0], messages))
        return out + self.sc(x, one_hot) if self.has_sc else out


class Layer(nn.Module):
    """``layer…_convnet``."""

    def __init__(self, irreps_in: o3.Irreps, hidden: o3.Irreps, harmonics: o3.Irreps, sc: bool, resnet: bool) -> None:
        super().__init__()
        kept = [(mul, ir) for mul, ir in hidden if path_exists(irreps_in, harmonics, ir)]
        scalars, gated = (o3.Irreps([part for part in kept if (part[1].l > 0) == high]) for high in (False, True))
        acts = [{1: _ssp, -1: torch.tanh}[ir.p] for _, ir in scalars]
        gates = o3.Irreps([(mul, "0e") for mul, _ in gated])
        silu = torch.nn.functional.silu
        self.equivariant_nonlin = e3nn_nn.Gate(scalars, acts, gates, [silu] * len(gates), gated)
        self.conv = Convolution(irreps_in, harmonics, self.equivariant_nonlin.irreps_in.simplify(), sc)
        self.resnet = resnet and self.equivariant_nonlin.irreps_out == irreps_in

    def forward(self, x: Tensor, one_hot: Tensor, basis: Tensor, y: Tensor, edges: Tensor) -> Tensor:
        out = self.equivariant_nonlin(self.conv(x, one_hot, basis, y, edges))
        return x + out if self.resnet else out


class Network(nn.Module):
    """``func``: energies of the atoms [N]."""

    def __init__(self, parity: bool, sc: bool, resnet: bool) -> None:
        super().__init__()
        features, l_max = SETTINGS["num_features"], SETTINGS["l_max"]
        harmonics = o3.Irreps.spherical_harmonics(l_max, -1 if parity else 1)
        hidden = [(features, (l, p)) for p in ((1, -1) if parity else (1,)) for l in range(l_max + 1)]
        self.sh = o3.SphericalHarmonics(harmonics, True, "component")
        basis = nn.Module()
        basis.bessel_weights = nn.Parameter(1.03 * math.pi * torch.arange(1.0, SETTINGS["num_basis"] + 1))
        self.radial_basis = _named(basis=basis)
        self.chemical_embedding = _named(linear=o3.Linear(f"{len(TYPES)}x0e", f"{features}x0e"))
        irreps = o3.Irreps(f"{features}x0e")
        for index in range(SETTINGS["num_layers"]):
            layer = Layer(irreps, o3.Irreps(hidden), harmonics, sc, resnet)
            self.add_module(f"layer{index}_convnet", layer)
            irreps = layer.equivariant_nonlin.irreps_out
        self.conv_to_output_hidden = _named(linear=o3.Linear(irreps, f"{features // 2}x0e"))
        self.output_hidden_to_scalar = _named(linear=o3.Linear(f"{features // 2}x0e", "1x0e"))
        self.per_species_rescale = nn.Module()
        self.per_species_rescale.register_buffer("scales", torch.tensor(_SCALES))
        self.per_species_rescale.register_buffer("shifts", torch.tensor(_SHIFTS))

    def forward(self, vectors: Tensor, edges: Tensor, types: Tensor) -> Tensor:
        r_max = SETTINGS["r_max"]
        r = vectors.norm(dim=1, keepdim=True)
        bessel = 2 / r_max * torch.sin(self.radial_basis.basis.bessel_weights * r / r_max) / r
        basis = bessel * polynomial_cutoff(r / r_max, SETTINGS["PolynomialCutoff_p"])
        one_hot, y = torch.nn.functional.one_hot(types, len(TYPES)).to(r), self.sh(vectors)
        x = self.chemical_embedding.linear(one_hot)
        for index in range(SETTINGS["num_layers"]):
            x = self.get_submodule(f"layer{index}_convnet")(x, one_hot, basis, y, edges)
        energy = self.output_hidden_to_scalar.linear(self.conv_to_output_hidden.linear(x))[:, 0]
        return self.per_species_rescale.shifts[types] + self.per_species_rescale.scales[types] * energy


class OldNequIP(nn.Module):
    """All of it; ``forward`` gives the energy of the structure and the forces."""

    def __init__(self, parity: bool, sc: bool, resnet: bool) -> None:
        super().__init__()
        self.model = _named(func=Network(parity, sc, resnet))
        self.register_buffer("scale_by", torch.tensor(_SCALE))
        self.register_buffer("shift_by", torch.zeros(0))

    def forward(self, positions: Tensor, edges: Tensor, types: Tensor) -> tuple[Tensor, Tensor]:
        positions = positions.detach().requires_grad_()
        energies = self.model.func(positions[edges[1]] - positions[edges[0]], edges, types)
        energy = self.scale_by * energies.sum()
        (gradient,) = torch.autograd.grad(energy, positions)
        return energy.detach(), -gradient
