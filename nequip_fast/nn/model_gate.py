"""The gate of NequIP's layers: activations by name and parity, irreps times learned scalars."""

from __future__ import annotations

from e3nn.o3 import Irreps
from torch import Tensor, nn

from nequip_fast.nn.activation_names import output_parity, second_moment_factor
from nequip_fast.ops import GateProblem, gate


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
        self.irreps_in = (self.irreps_scalars + irreps_gates + self.irreps_gated).sort().irreps.simplify()
        gate_output_parity = output_parity(gate_activations[gate_parity], gate_parity)
        # scalars stay apart as given, as in e3nn: the next layer has weights for each block
        self.irreps_out = Irreps(
            [(mul, (0, output_parity(scalar_activations[ir.p], ir.p))) for mul, ir in irreps_scalars]
            + [(mul, (ir.l, ir.p * gate_output_parity)) for mul, ir in self.irreps_gated]
        )
        self.problem = GateProblem.from_irreps(
            irreps_scalars,
            [_with_factor(scalar_activations[ir.p]) for _, ir in irreps_scalars],
            irreps_gates,
            [_with_factor(gate_activations[gate_parity])] * len(irreps_gates),
            self.irreps_gated,
        )

    def forward(self, x: Tensor) -> Tensor:
        """[N, irreps_in.dim] -> [N, irreps_out.dim]"""
        return gate(x, self.problem)

    def extra_repr(self) -> str:
        return f"{self.irreps_in} -> {self.irreps_out}"


def _with_factor(name: str) -> tuple[str, float]:
    return name, second_moment_factor(name)
