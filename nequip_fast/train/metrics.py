"""Error statistics: MAE and RMSE of energy per atom, forces (per element too) and stress."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from nequip_fast.data import keys
from nequip_fast.train.loss import residual_pair


class ErrorSums:
    """Running sums of |e|, e² and their count, on the device of the data; nothing is read back before ``result``.

    Rows: energy per atom, stress, then the force components of each element in ``type_names``. Forces overall are
    the sum of the elements' rows, so every number is accumulated once.
    """

    def __init__(self, type_names: Sequence[str], device: torch.device | str = "cpu"):
        self.type_names = list(type_names)
        self.sums = torch.zeros(2 + len(self.type_names), 3, dtype=torch.float64, device=device)

    @torch.no_grad()
    def add(self, prediction: Mapping[str, Tensor], reference: Mapping[str, Tensor]) -> None:
        """Add one batch. ``reference`` holds the labels it has, num_atoms [B] and atom_types [N]."""
        for row, name in enumerate(("energy", "stress")):
            label = keys.TOTAL_ENERGY if name == "energy" else keys.STRESS
            if label in reference and label in prediction:
                predicted, expected = residual_pair(name, prediction, reference)
                error = (predicted - expected).reshape(-1)
                known = ~torch.isnan(expected.reshape(-1))
                error = torch.where(known, error, 0.0)
                self.sums[row] += torch.stack([error.abs().sum(), error.square().sum(), known.sum()])
        if keys.FORCES in reference:
            predicted, expected = residual_pair("forces", prediction, reference)
            error = predicted - expected
            per_atom = torch.stack(
                [error.abs().sum(1), error.square().sum(1), torch.full_like(error[:, 0], 3.0)], dim=1
            )
            self.sums[2:].index_add_(0, reference[keys.ATOM_TYPES].view(-1), per_atom)

    def result(self) -> dict[str, float]:
        """``{energy,forces,stress,forces_<element>}_{mae,rmse}`` in eV/atom, eV/Å, eV/Å³; without data, absent."""
        sums = self.sums.cpu()
        rows = {"energy": sums[0], "forces": sums[2:].sum(0)}
        rows |= {f"forces_{name}": sums[2 + index] for index, name in enumerate(self.type_names)}
        rows["stress"] = sums[1]
        errors = {}
        for name, (absolute, square, count) in ((name, row.tolist()) for name, row in rows.items()):
            if count:
                errors[f"{name}_mae"] = absolute / count
                errors[f"{name}_rmse"] = (square / count) ** 0.5
        return errors


def trivial_prediction(reference: Mapping[str, Tensor], num_types: int) -> dict[str, Tensor]:
    """What can be said without a model: fitted energies per element, no forces, the mean stress.

    The energies are the least-squares fit to these very structures (for one composition: their mean per atom), so
    that no other set of element energies does better.

    Args:
        reference: total_energy [B, 1], atom_types [N], batch [N], and forces [N, 3], stress [B, 3, 3] where known.
    """
    prediction = {}
    if keys.TOTAL_ENERGY in reference:
        energy = reference[keys.TOTAL_ENERGY].view(-1, 1).to(torch.float64)
        composition = torch.zeros(len(energy), num_types, dtype=torch.float64)
        one = torch.ones(len(reference[keys.BATCH]), dtype=torch.float64)
        composition.index_put_((reference[keys.BATCH], reference[keys.ATOM_TYPES].view(-1)), one, accumulate=True)
        per_atom = composition.sum(1, keepdim=True)  # fit the energy per atom: that is what is compared
        fitted = torch.linalg.lstsq(composition / per_atom, energy / per_atom, driver="gelsd").solution
        prediction[keys.TOTAL_ENERGY] = composition @ fitted
    if keys.FORCES in reference:
        prediction[keys.FORCES] = torch.zeros_like(reference[keys.FORCES])
    if keys.STRESS in reference:
        stress = reference[keys.STRESS]
        prediction[keys.STRESS] = torch.nanmean(stress, 0, keepdim=True).expand_as(stress)
    return prediction
