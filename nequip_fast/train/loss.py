"""The training loss: a weighted mean of energy, force and stress errors."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

from nequip_fast.data import keys
from nequip_fast.train.config import LossConfig

TERMS = ("energy", "forces", "stress")


class Loss:
    """Σ c_k · mean(ℓ(error_k)) with Σ c_k = 1, as nequip's ``EnergyForceStressLoss`` computes it.

    ℓ is the square, or Huber's function; the errors are those of the energy per atom [eV], of every force component
    [eV/Å] and of every stress component [eV/Å³]. A NaN in the reference stress means "not known" and counts for
    nothing.
    """

    def __init__(self, config: LossConfig):
        total = config.energy + config.forces + config.stress
        self.coefficients = {name: getattr(config, name) / total for name in TERMS}
        self.terms = tuple(name for name in TERMS if self.coefficients[name] > 0)
        self._huber_delta = config.huber_delta if config.kind == "huber" else None

    def __call__(
        self, prediction: Mapping[str, Tensor], reference: Mapping[str, Tensor], counts: Mapping[str, int] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Loss of one batch, and the means it is made of.

        Args:
            prediction: total_energy [B, 1], forces [N, 3], stress [B, 3, 3] of the model.
            reference: the same, and num_atoms [B].
            counts: how many numbers each mean runs over; for a batch that is divided over processes these are the
                numbers of the whole batch, so that the sum over processes is its loss. Default: as many as are here.

        Returns:
            the loss, a scalar that can be differentiated; the means in the order of ``terms``, detached.
        """
        means = []
        for name in self.terms:
            predicted, expected = residual_pair(name, prediction, reference)
            known = ~torch.isnan(expected) if name == "stress" else None
            if known is not None:
                expected = torch.where(known, expected, predicted.detach())
            count: Tensor | int = counts[name] if counts else expected.numel() if known is None else known.sum()
            if isinstance(count, Tensor):
                count = count.clamp(min=1)
            means.append(self._sum(predicted, expected) / count)
        loss = torch.stack([self.coefficients[name] * mean for name, mean in zip(self.terms, means, strict=True)]).sum()
        return loss, torch.stack([mean.detach() for mean in means])

    def _sum(self, predicted: Tensor, expected: Tensor) -> Tensor:
        if self._huber_delta is not None:
            return functional.huber_loss(predicted, expected, reduction="sum", delta=self._huber_delta)
        return functional.mse_loss(predicted, expected, reduction="sum")


def residual_pair(
    name: str, prediction: Mapping[str, Tensor], reference: Mapping[str, Tensor]
) -> tuple[Tensor, Tensor]:
    """What is compared for ``energy`` (per atom), ``forces`` or ``stress``: ``(predicted, expected)``, float64."""
    if name == "energy":
        per_atom = reference[keys.NUM_ATOMS].to(torch.float64).reciprocal()
        energies = prediction[keys.TOTAL_ENERGY].view(-1), reference[keys.TOTAL_ENERGY].view(-1)
        return energies[0].to(torch.float64) * per_atom, energies[1].to(torch.float64) * per_atom
    key = keys.FORCES if name == "forces" else keys.STRESS
    return prediction[key].to(torch.float64), reference[key].to(torch.float64).view_as(prediction[key])
