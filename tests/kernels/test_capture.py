"""torch.compile, torch.export and AOTInductor see the kernels inside the operators, not calls of our library."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch._subclasses.functional_tensor import dispatch_functionalize
from torch.fx.experimental.proxy_tensor import make_fx

triton = pytest.importorskip("triton")

from nequip_fast.ops import ConvProblem, GateProblem, GateSegment, ProductPath, ProductProblem, backend  # noqa: E402

pytestmark = pytest.mark.skipif(backend.INTERPRETED, reason="interpreted kernels are no part of a graph")


class H100:
    """As much of a GPU's driver as torch asks for when it looks which tensors a kernel writes."""

    def get_current_target(self):
        return triton.backends.compiler.GPUTarget("cuda", 90, 32)

    def get_current_device(self):
        return 0


@pytest.fixture
def driver(monkeypatch):
    monkeypatch.setattr(triton.runtime.driver, "_active", H100())


def nodes(function, *arguments):
    """The kernels of a traced function, each with what torch found it to write, and the other operators."""
    graph = make_fx(dispatch_functionalize(function), tracing_mode="fake")(*arguments).graph
    calls = [node for node in graph.nodes if node.op == "call_function"]
    kernels = [node for node in calls if "triton_kernel_wrapper" in str(node.target)]
    table = torch._higher_order_ops.triton_kernel_wrap.kernel_side_table
    written = [
        (table.get_kernel(node.kwargs["kernel_idx"]).fn.__name__, tuple(node.kwargs["tensors_to_clone"]))
        for node in kernels
    ]
    return written, {str(node.target) for node in calls if node not in kernels}


def test_conv_is_its_kernels(driver):
    """Forward and gradients: each kernel writes its results and nothing else."""
    from nequip_fast.kernels import operators  # noqa: F401

    problem = ConvProblem.from_irreps("8x0e+8x1o", "0e+1o", "8x0e+8x1o+8x1o", [(0, 0, 0), (0, 1, 1), (1, 0, 2)])
    with FakeTensorMode():
        shapes = (5, problem.dim_x), (30, problem.dim_y), (30, problem.dim_w), (5, problem.dim_out)
        x, y, w, g = (torch.empty(shape, device="cuda") for shape in shapes)
        order, pointer = (torch.zeros(count, dtype=torch.int64, device="cuda") for count in (30, 6))
        graph = order, order, pointer, order, pointer, order
        written, others = nodes(lambda *t: torch.ops.nequip_fast.triton_conv(*t, problem.text), x, y, w, *graph)
        assert written == [("to_channel_last", ("out",)), ("sum_over_edges", ("out",))]
        assert not any("nequip_fast" in name for name in others)
        written, others = nodes(
            lambda *t: torch.ops.nequip_fast.triton_conv_gradient(*t, problem.text, True, True, True),
            x, y, w, g, *graph,
        )  # fmt: skip
        assert written == [
            ("to_channel_last", ("out",)), ("sum_over_edges", ("out",)),
            ("to_channel_last", ("out",)), ("gradients_of_edges", ("to_y", "to_w")),
        ]  # fmt: skip
        assert not any("nequip_fast" in name for name in others)


def test_the_other_operators_are_their_kernels(driver):
    """The same of harmonics, gate and segment_sum."""
    from nequip_fast.kernels import operators  # noqa: F401

    ops, gate = torch.ops.nequip_fast, GateProblem([GateSegment(3, 0, 0, 3, 3, "silu", 1.0)], 12)
    with FakeTensorMode():
        v, x, m = (torch.empty(shape, device="cuda") for shape in ((30, 3), (30, 12), (30, 7)))
        order, pointer = (torch.zeros(count, dtype=torch.int64, device="cuda") for count in (30, 6))
        written, _ = nodes(lambda v: ops.triton_spherical_harmonics(v, [0, 1, 2], "component", True), v)
        assert written == [("spherical_harmonics", ("out",))]
        written, _ = nodes(lambda x: ops.triton_gate(x, gate.text), x)
        assert written == [("gate", ("out",))]
        written, _ = nodes(lambda *t: ops.triton_segment_sum(*t), m, pointer, order, order)
        assert written == [("segment_sum", ("out",))]
        length, roots = (torch.empty(shape, device="cuda", dtype=torch.float64) for shape in ((30, 1), (8,)))
        written, _ = nodes(lambda x: ops.triton_radial(x, 6.0, 1.0, roots, True), length)
        assert written == [("radial", ("out",))]


def test_tensor_product_is_its_kernels(driver):
    """Forward and gradients, weights shared or not."""
    from nequip_fast.kernels import operators  # noqa: F401

    path = ProductPath("uvw", 1, 0, 1, 3, 2, 3, 0, 0, 0, 0, 1.0)
    problem, ops = ProductProblem([path], 9, 2, 18, 9), torch.ops.nequip_fast
    for rows, last in ((1, "contract_weights"), (30, "contract_weights_of_rows")):
        with FakeTensorMode():
            x, y, w, g = (torch.empty(shape, device="cuda") for shape in ((30, 9), (30, 2), (rows, 18), (30, 9)))
            written, others = nodes(lambda *t: ops.triton_tensor_product(*t, problem.text), x, y, w)
            assert written == [("contract", ("out",))]
            assert not any("nequip_fast" in name for name in others)
            written, others = nodes(
                lambda *t: ops.triton_tensor_product_gradient(*t, problem.text, True, True, True), x, y, w, g
            )
            assert written == [("contract", ("out",)), ("contract", ("out",)), (last, ("out",))]
            assert not any("nequip_fast" in name for name in others)
