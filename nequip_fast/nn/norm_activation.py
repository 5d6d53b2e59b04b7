"""Drop-in for ``e3nn.nn.NormActivation``."""

from __future__ import annotations

from collections.abc import Callable

import torch
from e3nn.util.jit import compile_mode
from torch import Tensor, nn

from nequip_fast.errors import InputError
from nequip_fast.o3 import ElementwiseTensorProduct, Irreps, Norm


@compile_mode("unsupported")
class NormActivation(nn.Module):
    """``e3nn.nn.NormActivation``: each copy of each irrep times ``f(|x| + bias)``, divided by ``|x|`` if normalising.

    Args:
        irreps_in: of the input and the output.
        scalar_nonlinearity: the function f of the norms.
        normalize: divide by the norm. (Without it e3nn 0.6 fails in its constructor.)
        epsilon: norms below are taken for it; 1e-8 where ``normalize`` is set, forbidden where it is not.
        bias: learn a bias for each copy, zero at the start.

    Shapes: [..., irreps_in.dim] -> [..., irreps_in.dim].

    Raises:
        InputError: ``epsilon`` without ``normalize``, or not positive.
    """

    def __init__(
        self,
        irreps_in: Irreps | str,
        scalar_nonlinearity: Callable[[Tensor], Tensor],
        normalize: bool = True,
        epsilon: float | None = None,
        bias: bool = False,
    ) -> None:
        super().__init__()
        self.irreps_in = self.irreps_out = Irreps(irreps_in)
        if epsilon is not None and not normalize:
            raise InputError("epsilon is the smallest norm to divide by: leave it out with normalize=False")
        if epsilon is not None and not epsilon > 0:
            raise InputError(f"epsilon must be positive, got {epsilon}")
        self.epsilon = 1e-8 if epsilon is None and normalize else epsilon
        self._eps_squared = 0.0 if self.epsilon is None else self.epsilon**2
        # squared, so that the clamp comes before the root, whose derivative at zero is infinite
        self.norm = Norm(self.irreps_in, squared=self.epsilon is not None)
        self.scalar_nonlinearity = scalar_nonlinearity
        self.normalize, self.bias = normalize, bias
        if bias:
            self.biases = nn.Parameter(torch.zeros(self.irreps_in.num_irreps))
        self.scalar_multiplier = ElementwiseTensorProduct(self.norm.irreps_out, self.irreps_in)

    def forward(self, features: Tensor) -> Tensor:
        """See the class for shapes."""
        norms = self.norm(features)
        if self.epsilon is not None:
            norms = torch.where(norms < self._eps_squared, self._eps_squared, norms).sqrt()
        scalings = self.scalar_nonlinearity(norms + self.biases if self.bias else norms)
        return self.scalar_multiplier(scalings / norms if self.normalize else scalings, features)
