"""What nequip's training, commands and tests ask of a model, by name: nequip itself is not needed for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import torch
from e3nn.o3 import Irreps
from torch import Tensor, nn

from nequip_fast.data import keys
from nequip_fast.nn.radial import cutoff_table

_INPUTS: Final[dict[str, Irreps | None]] = {
    keys.POSITIONS: Irreps("1o"),
    keys.ATOM_TYPES: None,
    keys.EDGE_INDEX: None,
    keys.EDGE_CELL_SHIFT: None,
    keys.CELL: Irreps("1o"),  # three of them
    keys.BATCH: None,
    keys.NUM_ATOMS: None,
}
_ENERGIES: Final = {keys.TOTAL_ENERGY: Irreps("0e"), keys.ATOMIC_ENERGY: Irreps("0e")}
# three rows each of stress and virial, which nequip knows to be tensors by their names
_DERIVATIVES: Final = {keys.FORCES: Irreps("1o"), keys.STRESS: Irreps("1o"), keys.VIRIAL: Irreps("1o")}


class NequIPInterface(nn.Module):
    """Attributes of nequip's ``GraphModel``; a base of :class:`~nequip_fast.model.GraphModel` alone.

    Attributes:
        is_graph_model, is_compile_graph_model: what nequip knows a model by, packaged ones included.
    """

    is_graph_model: Final = True
    is_compile_graph_model: Final = False
    _is_graph_module_mixin: Final = True

    type_names: list[str]
    r_max: float
    model_dtype: torch.dtype
    do_derivatives: bool
    config: dict[str, Any]

    @property
    def irreps_in(self) -> dict[str, Irreps | None]:
        """Irreps of the tensors that the model reads; None for those that are not of real numbers."""
        fields = self.config.get("categorical_graph_field_embed") or ()
        return {**_INPUTS, **{str(spec["field"]): None for spec in fields}}

    @property
    def irreps_out(self) -> dict[str, Irreps | None]:
        """Irreps of all tensors that the model gives, its inputs among them."""
        return {**self.irreps_in, **_ENERGIES, **(_DERIVATIVES if self.do_derivatives else {})}

    @property
    def model_input_fields(self) -> list[str]:
        return list(self.irreps_in)

    @property
    def metadata(self) -> dict[str, str]:
        """The facts that nequip writes into compiled files, as it writes them."""
        facts = {
            "model_dtype": str(self.model_dtype).removeprefix("torch."),
            "type_names": " ".join(self.type_names),
            "num_types": str(len(self.type_names)),
            "r_max": str(self.r_max),
            "nequip_custom_ops_libs": "nequip_fast",  # nequip imports it before it loads the file
        }
        cutoffs = self.config.get("per_edge_type_cutoff")
        if cutoffs is not None:
            table = cutoff_table(cutoffs, self.type_names, self.r_max)
            facts["per_edge_type_cutoff"] = " ".join(map(str, table.flatten().tolist()))
        return facts

    def given(self, data: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What of ``data`` the model reads: nequip's models give it back beside their results, and labels never."""
        return {name: data[name] for name in self.irreps_in if name in data}

    def __reduce_package__(self, exporter: Any) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        """Into a package (``torch.package``, nequip-package) go the settings and weights; the code stays installed."""
        return model_from_package, (self.config, dict(self.state_dict()), self.training)


def model_from_package(importer: Any, config: dict[str, Any], weights: dict[str, Tensor], training: bool) -> Any:
    """What packages call; its name is in their files (:mod:`nequip_fast.model.pickled`)."""
    from nequip_fast.model.builders import build_model

    model = build_model(config)
    model.load_state_dict(weights)
    return model.train(training)
