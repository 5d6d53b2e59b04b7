"""Drop-in for ``e3nn.nn.Activation``."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from e3nn import nn
from e3nn.o3 import Irreps
from e3nn.util.jit import compile_mode
from torch import Tensor

from nequip_fast.adoption import Adoptable
from nequip_fast.errors import InputError
from nequip_fast.nn.activation_names import NO_KERNEL, named_activations
from nequip_fast.o3.errors import ShapeError
from nequip_fast.ops import GateProblem, GateSegment, gate


@compile_mode("unsupported")
class Activation(Adoptable, nn.Activation):
    """``e3nn.nn.Activation``: a function, scaled to unit second moment, on each block of scalars; None leaves a block.

    One pass where all functions have kernels (:data:`nequip_fast.ops.gate.ACTIVATIONS`), e3nn's own code otherwise.
    Arguments, attributes and ``repr`` are inherited. Shapes: [..., irreps_in.dim] -> [..., irreps_out.dim].
    """

    def __init__(self, irreps_in: Irreps | str, acts: Sequence[Callable[[Tensor], Tensor] | None]) -> None:
        super().__init__(irreps_in, acts)
        self._derive(by_value=False)

    def _prepare(self) -> None:
        self._derive(by_value=True)
        if self.problem is None:
            raise InputError(NO_KERNEL)

    def _derive(self, by_value: bool) -> None:
        self._dim_in = self.irreps_in.dim
        named = named_activations(self.acts, by_value)
        self.problem: GateProblem | None = None
        if named is not None:
            blocks = zip(self.irreps_in.slices(), named, strict=True)
            segments = [GateSegment(at.start, -1, at.start, at.stop - at.start, 1, *act) for at, act in blocks]
            self.problem = GateProblem(segments, self._dim_in)

    def forward(self, features: Tensor, dim: int = -1) -> Tensor:
        """See the class for shapes; ``dim`` is the dimension that holds the irreps.

        Raises:
            ShapeError: that dimension does not fit ``irreps_in``.
        """
        if features.shape[dim] != self._dim_in:
            raise ShapeError(f"dimension {dim} of the features must be {self._dim_in}, got {list(features.shape)}")
        if self.problem is None:
            return super().forward(features, dim)
        if dim in (-1, features.dim() - 1):
            return gate(features, self.problem)
        return gate(features.movedim(dim, -1), self.problem).movedim(-1, dim)
