"""Energies of the atoms from network outputs: a scale and a shift per type, in float64."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from nequip_fast.errors import InputError, nearest


class PerTypeScaleShift(nn.Module):
    """``E_i = shift[type_i] + scale[type_i] · e_i`` in float64, whatever the precision of the network.

    Args:
        type_names: names of the types, in order.
        scales, shifts: eV; one number, one per type by name, or None for 1 and 0.
        scales_trainable, shifts_trainable: make them parameters, then always one per type.
    """

    def __init__(
        self,
        type_names: Sequence[str],
        scales: float | Mapping[str, float] | None = None,
        shifts: float | Mapping[str, float] | None = None,
        scales_trainable: bool = False,
        shifts_trainable: bool = False,
    ) -> None:
        super().__init__()
        self.type_names = list(type_names)
        self.has_scales, self.has_shifts = scales is not None, shifts is not None  # by nequip's names
        self._register("scales", scales, scales_trainable)
        self._register("shifts", shifts, shifts_trainable)
        self.scales: Tensor | None
        self.shifts: Tensor | None

    def _register(self, name: str, values: float | Mapping[str, float] | None, trainable: bool) -> None:
        if values is None:
            self.register_buffer(name, None)
            return
        column = torch.tensor(per_type_values(f"per_type_energy_{name}", values, self.type_names), dtype=torch.float64)
        if trainable:
            self.register_parameter(name, nn.Parameter(column.expand(len(self.type_names)).clone().unsqueeze(1)))
        else:
            self.register_buffer(name, column.unsqueeze(1))

    def forward(self, energy: Tensor, types: Tensor) -> Tensor:
        """Outputs [N, 1] of atoms of ``types`` [N] -> energies [N, 1], float64."""
        energy = energy.double()
        scale, shift = _of_atoms(self.scales, types), _of_atoms(self.shifts, types)
        if scale is not None and shift is not None:
            return torch.addcmul(shift, scale, energy)
        if scale is not None:
            return scale * energy
        return energy if shift is None else shift + energy

    def extra_repr(self) -> str:
        return ", ".join(
            f"{name}={[round(value, 6) for value in values.flatten().tolist()]}"
            for name, values in (("scales", self.scales), ("shifts", self.shifts))
            if values is not None
        )


def _of_atoms(values: Tensor | None, types: Tensor) -> Tensor | None:
    return values if values is None or values.shape[0] == 1 else values[types]


def per_type_values(argument: str, values: float | Mapping[str, float], type_names: Sequence[str]) -> list[float]:
    """One number, or one per type in the order of ``type_names``.

    Raises:
        InputError: a type has no value, a name is no type, or ``values`` is a list.
    """
    if isinstance(values, Mapping):
        for name in values:
            if name not in type_names:
                raise InputError(f"{argument} names {name!r}, which is not in type_names{nearest(name, type_names)}")
        missing = [name for name in type_names if name not in values]
        if missing:
            raise InputError(f"{argument} has no value for {', '.join(missing)}; give one for every type name")
        return [float(values[name]) for name in type_names]
    if isinstance(values, (int, float)):
        return [float(values)]
    raise InputError(f"{argument} must be one number or a dict by type name, not {type(values).__name__}")
