"""Drop-in for ``e3nn.o3.SphericalHarmonics`` and ``e3nn.o3.spherical_harmonics``."""

from __future__ import annotations

import torch
from e3nn import o3
from torch import Tensor

from nequip_fast.adoption import Adoptable
from nequip_fast.errors import InputError
from nequip_fast.o3.errors import ShapeError
from nequip_fast.ops.spherical_harmonics import MAX_L, NORMALIZATIONS, evaluate


def spherical_harmonics(
    l: int | list[int] | str | o3.Irreps, x: Tensor, normalize: bool, normalization: str = "integral"
) -> Tensor:
    """Real spherical harmonics, arguments and conventions of e3nn's function of this name.

    Args:
        l: degrees (any order, repeats allowed) or irreps made of spherical harmonics.
        x: vectors [..., 3].
        normalize: take directions only.
        normalization: ``component`` |Y_l|² = 2l + 1, ``norm`` |Y_l| = 1, ``integral`` ∫|Y_lm|² = 1.

    Returns:
        [..., Σ (2l + 1)].
    """
    return SphericalHarmonics(l, normalize, normalization)(x)


class SphericalHarmonics(Adoptable, torch.nn.Module):
    """Module form of :func:`spherical_harmonics`; same constructor and attributes as e3nn's."""

    def __init__(
        self,
        irreps_out: int | list[int] | str | o3.Irreps,
        normalize: bool,
        normalization: str = "integral",
        irreps_in: o3.Irreps | str | None = None,
    ) -> None:
        super().__init__()
        if normalization not in NORMALIZATIONS:
            raise InputError(f"normalization must be one of {', '.join(NORMALIZATIONS)}, got {normalization!r}")
        if isinstance(irreps_out, str):
            irreps_out = o3.Irreps(irreps_out)
        if irreps_in is None:  # as e3nn: an odd degree of even parity is a harmonic of a pseudovector
            pseudo = isinstance(irreps_out, o3.Irreps) and any(ir.l % 2 == 1 and ir.p == 1 for _, ir in irreps_out)
            irreps_in = "1e" if pseudo else "1o"
        vector = o3.Irreps(irreps_in)
        if vector not in (o3.Irreps("1x1o"), o3.Irreps("1x1e")):
            raise InputError(f"irreps_in must be one vector, 1x1o or 1x1e, got {vector}")
        parity = vector[0].ir.p
        if isinstance(irreps_out, o3.Irreps):
            for _, ir in irreps_out:
                if ir.p != parity**ir.l:
                    raise InputError(
                        f"{ir} is no spherical harmonic of a {vector[0].ir} vector: its parity must be {parity**ir.l}"
                    )
        if isinstance(irreps_out, int):
            self._ls_list = [irreps_out]
        else:
            self._ls_list = irreps_out.ls if isinstance(irreps_out, o3.Irreps) else list(irreps_out)
        if not self._ls_list:
            raise InputError("irreps_out must name at least one degree")
        self._prepare()
        self.irreps_in = vector
        self.irreps_out = o3.Irreps([(1, (l, parity**l)) for l in self._ls_list]).simplify()
        self.normalize, self.normalization = normalize, normalization
        self._lmax = max(self._ls_list)
        self._is_range_lmax = self._ls_list == list(range(self._lmax + 1))

    def _prepare(self) -> None:
        if not 0 <= min(self._ls_list) <= max(self._ls_list) <= MAX_L:
            raise InputError(f"spherical harmonics go from l = 0 to {MAX_L}, got {self._ls_list}")
        self._degrees = tuple(self._ls_list)

    def forward(self, x: Tensor) -> Tensor:
        """x [..., 3] → [..., irreps_out.dim].

        Raises:
            ShapeError: x has another shape.
        """
        if x.dim() == 0 or x.shape[-1] != 3:
            raise ShapeError(f"SphericalHarmonics: x must be [..., 3], got {list(x.shape)}")
        return evaluate(x, self._degrees, self.normalization, self.normalize)
