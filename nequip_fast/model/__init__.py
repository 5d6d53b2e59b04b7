"""NequIP models: builders with nequip's arguments, files, and the conversion of nequip's checkpoints and packages."""

from nequip_fast.model.builders import FullNequIPGNNModel, NequIPGNNModel, PresetNequIPGNNModel, build_model
from nequip_fast.model.convert import from_nequip_checkpoint, from_nequip_package, load_nequip_state_dict
from nequip_fast.model.graph_model import EdgeGeometry, GraphModel
from nequip_fast.model.io import load_model, save_model
from nequip_fast.model.old_nequip import from_old_nequip

__all__ = [
    "EdgeGeometry",
    "FullNequIPGNNModel",
    "GraphModel",
    "NequIPGNNModel",
    "PresetNequIPGNNModel",
    "build_model",
    "from_nequip_checkpoint",
    "from_nequip_package",
    "from_old_nequip",
    "load_model",
    "load_nequip_state_dict",
    "save_model",
]
