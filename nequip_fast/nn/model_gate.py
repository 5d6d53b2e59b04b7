"""Equivariant nonlinearities: gating by learned scalars, and scaling by the norm."""

from __future__ import annotations

import torch
from e3nn.o3 import Irreps
from torch import Tensor, nn

from nequip_fast.nn.activations import activation, output_parity, second_moment_factor
from nequip_fast.nn.mixing import block_dims


class Gate(nn.Module):
    """Scalars through an activation, other irreps times an activated scalar of their own; as ``e3nn.nn.Gate``.

    Activations are scaled to unit second moment. The input is the sorted, merged direct sum of
    scalars, gates and gated irreps (``irreps_in``); the output is scalars, then gated irreps, in the order given.

    Args:
        irreps_scalars: scalars that become output.
        irreps_gated: l > 0 irreps.
        gate_parity: parity (+1, -1) of the gate scalars.
        scalar_activations, gate_activations: name of the activation by parity of its argument.
    """

    def __init__(
        self,
        irreps_scalars: Irreps,
        irreps_gated: Irreps,
        gate_parity: int,
        scalar_activations: dict[int, str],
        gate_activations: dict[int, str],
    ) -> None:
        super().__init__()
        self.irreps_scalars, self.irreps_gated = irreps_scalars.simplify(), irreps_gated.simplify()
        irreps_gates = Irreps([(irreps_gated.num_irreps, (0, gate_parity))] if len(irreps_gated) else [])
        parts = [*self.irreps_scalars, *irreps_gates, *self.irreps_gated]
        order = sorted(range(len(parts)), key=lambda i: (parts[i].ir, i))
        self.irreps_in = Irreps([parts[i] for i in order]).simplify()
        gate_output_parity = output_parity(gate_activations[gate_parity], gate_parity)
        # scalars stay apart as given, as in e3nn: the next layer has weights for each block
        self.irreps_out = Irreps(
            [(mul, (0, output_parity(scalar_activations[ir.p], ir.p))) for mul, ir in irreps_scalars]
            + [(mul, (ir.l, ir.p * gate_output_parity)) for mul, ir in self.irreps_gated]
        )
        # Neighbouring parts with the same activation are one piece, so that it is applied once.
        names = [scalar_activations[ir.p] for _, ir in self.irreps_scalars]
        names += [gate_activations[gate_parity]] * len(irreps_gates)
        names += [""] * len(self.irreps_gated)
        self._names: list[str] = []
        self._factors: list[float] = []
        self._dims: list[int] = []
        self._inner_dims: list[list[int]] = []
        self._parts: list[list[int]] = []
        for i in order:
            if self._names and names[i] and names[i] == self._names[-1]:
                self._dims[-1] += parts[i].dim
                self._inner_dims[-1].append(parts[i].dim)
                self._parts[-1].append(i)
            else:
                self._names.append(names[i])
                self._factors.append(second_moment_factor(names[i]) if names[i] else 1.0)
                self._dims.append(parts[i].dim)
                self._inner_dims.append([parts[i].dim])
                self._parts.append([i])
        self._num_scalars, self._num_parts = len(self.irreps_scalars), len(parts)
        self._gate_muls = [mul for mul, _ in self.irreps_gated]

    def forward(self, x: Tensor) -> Tensor:
        """[N, irreps_in.dim] -> [N, irreps_out.dim]"""
        parts: list[Tensor] = [x] * self._num_parts
        for piece, name, factor, dims, members in zip(
            x.split(self._dims, dim=1), self._names, self._factors, self._inner_dims, self._parts, strict=True
        ):
            y = activation(name)(piece) * factor if name else piece
            for i, part in zip(members, y.split(dims, dim=1) if len(dims) > 1 else (y,), strict=True):
                parts[i] = part
        scalars, rest = parts[: self._num_scalars], parts[self._num_scalars :]
        if not rest:
            return scalars[0] if len(scalars) == 1 else torch.cat(scalars, dim=1)
        gates, gated = rest[0].split(self._gate_muls, dim=1), rest[1:]
        return torch.cat(
            [
                *scalars,
                *[
                    (y.reshape(y.shape[0], mul, y.shape[1] // mul) * gate.unsqueeze(-1)).flatten(1)
                    for y, gate, mul in zip(gated, gates, self._gate_muls, strict=True)
                ],
            ],
            dim=1,
        )

    def extra_repr(self) -> str:
        return f"{self.irreps_in} -> {self.irreps_out}"


class NormActivation(nn.Module):
    """Each copy of each irrep times ``f(|x|) / |x|``; as ``e3nn.nn.NormActivation(normalize=True, bias=False)``.

    Args:
        irreps: of the input and the output.
        name: the activation ``f``.
        epsilon: smallest norm told apart from zero.
    """

    def __init__(self, irreps: Irreps, name: str, epsilon: float = 1e-8) -> None:
        super().__init__()
        self.irreps_in = self.irreps_out = irreps
        self._name, self._epsilon = name, epsilon
        self._dims = block_dims(irreps)

    def forward(self, x: Tensor) -> Tensor:
        """[N, irreps.dim] -> [N, irreps.dim]"""
        outputs = []
        for block, (mul, ir) in zip(x.split(self._dims, dim=1), self.irreps_in, strict=True):
            copies = block.reshape(block.shape[0], mul, ir.dim)
            norm = copies.square().sum(-1, keepdim=True).clamp(min=self._epsilon**2).sqrt()
            outputs.append((copies * (activation(self._name)(norm) / norm)).flatten(1))
        return torch.cat(outputs, dim=1)

    def extra_repr(self) -> str:
        return f"{self.irreps_in}, {self._name}"
