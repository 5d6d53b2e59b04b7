"""The Ziegler-Biersack-Littmark screened nuclear repulsion, a prior for short distances."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nequip_fast.errors import InputError, nearest
from nequip_fast.nn.radial import check_cutoff_exponent
from nequip_fast.ops.radial import polynomial_cutoff

_TABLE = (
    "H He Li Be B C N O F Ne Na Mg Al Si P S Cl Ar K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge As Se Br Kr Rb Sr Y Zr Nb "
    "Mo Tc Ru Rh Pd Ag Cd In Sn Sb Te I Xe Cs Ba La Ce Pr Nd Pm Sm Eu Gd Tb Dy Ho Er Tm Yb Lu Hf Ta W Re Os Ir Pt Au "
    "Hg Tl Pb Bi Po At Rn Fr Ra Ac Th Pa U Np Pu Am Cm Bk Cf Es Fm Md No Lr Rf Db Sg Bh Hs Mt Ds Rg Cn Nh Fl Mc Lv "
    "Ts Og"
)
_SYMBOLS = _TABLE.split()

# e²/(4 π ε0) in the energy · length of the unit systems of LAMMPS, with its digits
_COULOMB = {"metal": 14.399645, "real": 332.06371}  # eV Å, kcal/mol Å

# Ziegler, Biersack, Littmark 1985, with the constants of LAMMPS pair_style zbl (docs.lammps.org/pair_zbl.html):
# screening length 0.46850 Å / (Zi^0.23 + Zj^0.23), screening function Σ c exp(-d x)
_EXPONENT, _LENGTH = 0.23, 0.46850
_SCREENING = ((0.02817, 0.20162), (0.28022, 0.40290), (0.50986, 0.94229), (0.18175, 3.19980))


def screened_repulsion(lengths: Tensor, z1: Tensor, z2: Tensor, factor: Tensor | float) -> Tensor:
    """``factor · z1 z2 / r · Σ c exp(-d r/a)`` of nuclei with charges z1 and z2, shapes as ``lengths``."""
    x = (z1.pow(_EXPONENT) + z2.pow(_EXPONENT)) * lengths / _LENGTH
    screening = torch.zeros_like(x)
    for c, d in _SCREENING:
        screening = screening + c * torch.exp(-d * x)
    return factor * z1 * z2 / lengths * screening


class ZBL(nn.Module):
    """Half of ``Zi Zj e² / (4 π ε0 r) · Σ c exp(-d r/a) · envelope(r)`` for each directed edge, in float64.

    Args:
        type_names: names of the types, in order.
        chemical_species: chemical symbol of each type.
        units: ``metal`` (eV, Å) or ``real`` (kcal/mol, Å), as in LAMMPS.
        polynomial_cutoff_p: exponent of the envelope, which ends at the model's cutoff.
        dtype: of the stored atomic numbers.
    """

    def __init__(
        self,
        type_names: Sequence[str],
        chemical_species: Sequence[str],
        units: str = "metal",
        polynomial_cutoff_p: float = 6.0,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        super().__init__()
        if len(chemical_species) != len(type_names):
            raise InputError(
                f"ZBL: chemical_species has {len(chemical_species)} entries for {len(type_names)} types; give one each"
            )
        for symbol in chemical_species:
            if symbol not in _SYMBOLS:
                raise InputError(f"ZBL: {symbol!r} is no chemical symbol{nearest(symbol, _SYMBOLS)}")
        if units not in _COULOMB:
            raise InputError(f"ZBL: units must be metal or real, not {units!r}")
        self.chemical_species, self.units = list(chemical_species), units
        self.polynomial_cutoff_p = check_cutoff_exponent(polynomial_cutoff_p)
        numbers = [_SYMBOLS.index(symbol) + 1 for symbol in chemical_species]
        self.register_buffer("atomic_numbers", torch.tensor(numbers, dtype=dtype))
        self.register_buffer("_qqr2exesquare", torch.tensor(0.5 * _COULOMB[units], dtype=torch.float64))
        self.atomic_numbers: Tensor
        self._qqr2exesquare: Tensor

    @property
    def config(self) -> dict[str, Any]:
        """What rebuilds this term, as nequip writes it."""
        return {
            "_target_": "nequip.nn.pair_potential.ZBL",
            "chemical_species": self.chemical_species,
            "units": self.units,
            "polynomial_cutoff_p": self.polynomial_cutoff_p,
        }

    def forward(self, lengths: Tensor, normalized_lengths: Tensor, types: Tensor, edge_index: Tensor) -> Tensor:
        """Energy of each atom [N, 1].

        Args:
            lengths: [E, 1] float64, in Å.
            normalized_lengths: [E, 1], 1 at the cutoff.
            types: [N] type of each atom.
            edge_index: [2, E], row 0 the centre, to which the edge's energy is given.
        """
        z = self.atomic_numbers.double()[types][edge_index].unsqueeze(-1)
        energy = screened_repulsion(lengths, z[0], z[1], self._qqr2exesquare)
        energy = energy * polynomial_cutoff(normalized_lengths, self.polynomial_cutoff_p)
        return energy.new_zeros(types.shape[0], 1).index_add(0, edge_index[0], energy)

    def extra_repr(self) -> str:
        return f"{', '.join(self.chemical_species)}, units={self.units}, p={self.polynomial_cutoff_p:g}"
