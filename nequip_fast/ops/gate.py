"""``gate``: activation functions, and irreps times activated scalars of their own, in one pass over the rows.

    scalars  out[u] = c f(x[u])            gated irreps  out[u, m] = c f(s[u]) x[u, m],  s the gate scalars

f is one of :data:`ACTIVATIONS` and c a constant, in e3nn's modules the one that keeps the second moment at one. The
first derivative and its derivative are compiled as well, one pass each:
:func:`~nequip_fast.ops.registration.operator_with_vjp`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from math import log
from typing import Any, NamedTuple

import torch
from e3nn.o3 import Irreps
from torch import Tensor
from torch.nn import functional

from nequip_fast.errors import InputError, nearest
from nequip_fast.ops import backend
from nequip_fast.ops.description import describe, read
from nequip_fast.ops.registration import by_backend, operator_with_vjp


def shifted_softplus(x: Tensor) -> Tensor:
    """``log(1 + exp(x)) - log 2``, zero at zero."""
    return functional.softplus(x) - log(2.0)


# The kernels know an activation by its place here: Activation in csrc/problems/gate.h.
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "identity": lambda x: x,
    "silu": functional.silu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "abs": torch.abs,
    "ssp": shifted_softplus,
    "softplus": functional.softplus,
    "relu": torch.relu,
    "mish": functional.mish,
}
_NAMES = list(ACTIVATIONS)

NamedActivation = tuple[str, float]  # (name, constant)


class GateSegment(NamedTuple):
    """Neighbouring channels that are treated alike. Offsets count elements of a row.

    Scalars (``gate`` is -1, ``dim`` 1): x at ``x + u``, out at ``out + u``, u < mul. Gated irreps: x and out at
    ``offset + u · dim + m``, their gate scalars at ``gate + u``.
    """

    x: int
    gate: int
    out: int
    mul: int
    dim: int
    activation: str
    constant: float


class GateProblem:
    """All segments of one gate: rows [·, dim_in] -> [·, dim_out].

    Raises:
        InputError: an activation that has no kernel, segments that leave a part of the output out or write it twice,
            or that read a part of the input twice (parts may remain unread).
    """

    def __init__(self, segments: Sequence[GateSegment], dim_in: int) -> None:
        self.segments = tuple(s for s in segments if s.mul > 0)
        self.dim_in, self.dim_out = dim_in, sum(s.mul * s.dim for s in self.segments)
        for s in self.segments:
            if s.activation not in ACTIVATIONS:
                raise InputError(
                    f"gate: no activation {s.activation!r}{nearest(s.activation, ACTIVATIONS)} "
                    f"({', '.join(ACTIVATIONS)})"
                )
            if s.dim < 1 or (s.gate < 0 and s.dim != 1):
                raise InputError(f"gate: {s} has no gate, so its dim must be 1")
        reads = [(s.x, s.mul * s.dim) for s in self.segments] + [(s.gate, s.mul) for s in self.segments if s.gate >= 0]
        if not _apart(reads, dim_in):
            raise InputError(f"gate: the segments read parts of the input twice or beyond its {dim_in} elements")
        if not _apart([(s.out, s.mul * s.dim) for s in self.segments], self.dim_out):
            raise InputError("gate: the segments do not follow each other without gaps in the output")
        rows = ((*s[:5], _NAMES.index(s.activation), s.constant) for s in self.segments)
        self.text = describe((dim_in, self.dim_out), rows)

    @classmethod
    def from_text(cls, text: str) -> GateProblem:
        """The problem whose :attr:`text` this is."""
        (dim_in, _), rows = read(text, 2, len(GateSegment._fields))
        segments = [GateSegment._make((*at, _NAMES[code], constant)) for *at, code, constant in rows]
        return cls(segments, dim_in)

    @classmethod
    def from_irreps(
        cls,
        irreps_scalars: Irreps,
        act_scalars: Sequence[NamedActivation],
        irreps_gates: Irreps,
        act_gates: Sequence[NamedActivation],
        irreps_gated: Irreps,
    ) -> GateProblem:
        """The problem of ``e3nn.nn.Gate``: the input is the sorted, merged sum of the three.

        Args:
            irreps_scalars: scalars that become output; ``act_scalars`` has one entry for each of its blocks.
            irreps_gates: gate scalars, as many as there are gated irreps; ``act_gates`` likewise.
            irreps_gated: l > 0 as a rule.

        Raises:
            InputError: as many gates as gated irreps are needed; see also the class.
        """
        if irreps_gates.num_irreps != irreps_gated.num_irreps:
            raise InputError(
                f"gate: {irreps_gated.num_irreps} gated irreps need as many gate scalars, got {irreps_gates.num_irreps}"
            )
        parts = [irreps.simplify() for irreps in (irreps_scalars, irreps_gates, irreps_gated)]
        together = sum(parts, Irreps([]))
        arranged, places, _ = together.sort()
        starts = [s.start for s in arranged.slices()]
        inputs = [(starts[place], mul, ir.dim) for place, (mul, ir) in zip(places, together, strict=True)]
        scalars, gates, gated = (
            inputs[: len(parts[0])],
            inputs[len(parts[0]) : len(parts[0]) + len(parts[1])],
            inputs[len(parts[0]) + len(parts[1]) :],
        )
        segments, out = [], 0
        for mul, (act, _), (block, at) in _refined([mul for mul, _ in irreps_scalars], [mul for _, mul, _ in scalars]):
            segments.append(GateSegment(scalars[block][0] + at, -1, out, mul, 1, *act_scalars[act]))
            out += mul
        for mul, (act, _), (gate, gate_at), (block, at) in _refined(
            [mul for mul, _ in irreps_gates], [mul for _, mul, _ in gates], [mul for _, mul, _ in gated]
        ):
            start, _, dim = gated[block]
            segments.append(GateSegment(start + at * dim, gates[gate][0] + gate_at, out, mul, dim, *act_gates[act]))
            out += mul * dim
        return cls(segments, together.dim)


def gate(x: Tensor, problem: GateProblem) -> Tensor:
    """Activations and gating, differentiable to any order.

    Args:
        x: [..., problem.dim_in].

    Returns:
        [..., problem.dim_out].

    Raises:
        InputError: wrong shape, or the backend chosen by name cannot serve.
    """
    if x.dim() == 0 or x.shape[-1] != problem.dim_in:
        raise InputError(f"gate: x must be [..., {problem.dim_in}] for this problem, got {list(x.shape)}")
    chosen = backend.choose("gate", x)
    if chosen == "reference":
        return gate_reference(x, problem)
    return _gate[chosen](x, problem.text)


def gate_reference(x: Tensor, problem: GateProblem) -> Tensor:
    """The definition in plain torch."""
    parts = {}
    for s in problem.segments:
        scalars = x[..., s.x : s.x + s.mul] if s.gate < 0 else x[..., s.gate : s.gate + s.mul]
        factor = ACTIVATIONS[s.activation](scalars) * s.constant
        if s.gate >= 0:
            block = x[..., s.x : s.x + s.mul * s.dim].unflatten(-1, (s.mul, s.dim))
            factor = (block * factor.unsqueeze(-1)).flatten(-2)
        parts[s.out] = factor
    return torch.cat([parts[out] for out in sorted(parts)] or [x[..., :0]], dim=-1)


def _apart(blocks: Sequence[tuple[int, int]], dim: int) -> bool:
    """Whether blocks (start, length) lie in [0, dim) without overlap."""
    end = 0
    for start, length in sorted(blocks):
        if start < end:
            return False
        end = start + length
    return end <= dim


def _refined(*partitions: Sequence[int]) -> Iterator[tuple[Any, ...]]:
    """The common refinement of partitions of one range: (length, (block, offset in it) for each partition)."""
    bounds = [[sum(sizes[:i]) for i in range(len(sizes) + 1)] for sizes in partitions]
    cuts = sorted({bound for some in bounds for bound in some})
    for start, stop in pairwise(cuts):
        blocks = [max(i for i, bound in enumerate(some[:-1]) if bound <= start) for some in bounds]
        yield stop - start, *((i, start - some[i]) for i, some in zip(blocks, bounds, strict=True))


# --- the operators: csrc/register.cpp has the schemas, csrc/cpu, csrc/cuda and nequip_fast/kernels the kernels ---


def _fake(x: Tensor, text: str) -> Tensor:
    return x.new_empty(*x.shape[:-1], GateProblem.from_text(text).dim_out)


def _definition(x: Tensor, text: str) -> Tensor:
    return gate_reference(x, GateProblem.from_text(text))


_gate = by_backend(lambda prefix: operator_with_vjp(f"{prefix}gate", _fake, _definition))
