"""What several test files share: problems, random graphs, and the e3nn oracle of the convolution."""

from __future__ import annotations

import os
from typing import Any

import torch
from e3nn import o3

from nequip_fast.dtypes import default_dtype
from nequip_fast.ops import ConvProblem, Graph

# The backend whose kernels tests/ops checks: "cpu"; "triton", interpreted on the CPU with TRITON_INTERPRET=1; "cuda",
# emulated on the CPU by the library that tests/simt builds.
KERNELS = os.environ.get("NEQUIP_FAST_TEST_KERNELS", "cpu")


def operator(name: str) -> Any:
    """What torch knows as operator ``name`` of that backend."""
    return getattr(torch.ops.nequip_fast, f"{'triton_' if KERNELS == 'triton' else ''}{name}")


TRIPLES = [(a, b, c) for a in range(5) for b in range(5) for c in range(abs(a - b), min(a + b, 4) + 1)]


def all_paths(irreps_in1: str, l_max: int, l_out: int) -> tuple[o3.Irreps, o3.Irreps, o3.Irreps, list]:
    """(in1, spherical harmonics, out, instructions) of every path up to ``l_out``, each with its own output."""
    in1, sh = o3.Irreps(irreps_in1), o3.Irreps.spherical_harmonics(l_max)
    out, instructions = [], []
    for i, (mul, ir1) in enumerate(in1):
        for j, (_, ir2) in enumerate(sh):
            for ir3 in ir1 * ir2:
                if ir3.l <= l_out:
                    instructions.append((i, j, len(out)))
                    out.append((mul, ir3))
    return in1, sh, o3.Irreps(out), instructions


def inputs(problem: ConvProblem, graph: Graph, dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    """Random x, y, w that require gradients."""
    shapes = (graph.num_nodes, problem.dim_x), (graph.num_edges, problem.dim_y), (graph.num_edges, problem.dim_w)
    return [torch.randn(shape, dtype=dtype, requires_grad=True) for shape in shapes]


def random_graph(num_nodes: int, num_edges: int) -> Graph:
    """Unsorted edges, as a rule with repeats, self edges and nodes without any."""
    return Graph.from_edge_index(torch.randint(0, max(num_nodes, 1), (2, num_edges)), num_nodes)


def e3nn_conv(in1, in2, out, instructions, x, y, w, graph: Graph, **normalization: str) -> torch.Tensor:
    """e3nn's TensorProduct on gathered features and a scatter-sum, constants native to the dtype of x."""
    paths = [(*instruction, *("uvu", True)[len(instruction) - 3 :]) for instruction in instructions]
    with default_dtype(x.dtype):
        product = o3.TensorProduct(in1, in2, out, paths, shared_weights=False, internal_weights=False, **normalization)
    messages = product(x[graph.sender], y, w)
    return x.new_zeros(graph.num_nodes, o3.Irreps(out).dim).index_add(0, graph.receiver, messages)


def relative_error(value: torch.Tensor, reference: torch.Tensor) -> float:
    """|value − reference| / |reference| in the Frobenius norm (absolute where the reference is zero)."""
    value, reference = value.detach().double(), reference.detach().double()
    difference, size = float((value - reference).norm()), float(reference.norm())
    return difference / size if size else difference
