"""``accelerate``: the heavy modules of a live model made ours.

They are known by the name of their package and class, not by the class itself: a model packaged by nequip carries its
own copy of nequip's and e3nn's code.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import nn

import nequip_fast.nn as our_nn
from nequip_fast import o3
from nequip_fast.adoption import Adoptable
from nequip_fast.errors import InputError, nearest
from nequip_fast.integrations import modules as theirs
from nequip_fast.integrations.copies import Model, copied

PURPOSES = ("train", "inference")
REPLACEMENTS: dict[tuple[str, str], type[Adoptable]] = {
    ("nequip", "ApplyFactor"): theirs.ApplyFactor,
    ("nequip", "BesselEdgeLengthEncoding"): theirs.BesselEdgeLengthEncoding,
    ("nequip", "NodeTypeEmbed"): theirs.NodeTypeEmbed,
    ("nequip", "ScalarMLPFunction"): theirs.ScalarMLPFunction,
    ("nequip", "TensorProductScatter"): theirs.TensorProductScatter,
    ("sevenn", "IrrepsConvolution"): theirs.IrrepsConvolution,
    ("e3nn", "Activation"): our_nn.Activation,
    ("e3nn", "ElementwiseTensorProduct"): o3.ElementwiseTensorProduct,
    ("e3nn", "FullTensorProduct"): o3.FullTensorProduct,
    ("e3nn", "FullyConnectedNet"): our_nn.FullyConnectedNet,
    ("e3nn", "FullyConnectedTensorProduct"): theirs.FullyConnectedTensorProduct,
    ("e3nn", "Gate"): our_nn.Gate,
    ("e3nn", "Linear"): o3.Linear,
    ("e3nn", "SphericalHarmonics"): o3.SphericalHarmonics,
    ("e3nn", "TensorProduct"): o3.TensorProduct,
    ("e3nn", "TensorSquare"): o3.TensorSquare,
}
# others that a model spends its time in; of what they consist of, something may be replaced
_NO_REPLACEMENT = {
    ("nequip", "OpenEquivarianceTensorProductScatter"): "it runs on OpenEquivariance",
    ("nequip", "CuEquivarianceTensorProductScatter"): "it runs on cuEquivariance",
    ("sevenn", "IrrepsScatterGatterFusedConvolution"): "it runs on FlashTP or OpenEquivariance",
    ("allegro", "Contracter"): "Allegro's products have no kernel",
    ("e3nn", "FullTensorProductv2"): "it has no kernel",
    ("e3nn", "S2Activation"): "it has no kernel",
    ("e3nn", "SO3Activation"): "it has no kernel",
}


@dataclass(frozen=True)
class Acceleration:
    """What :func:`accelerate` did; ``str`` of it is a summary.

    Attributes:
        replaced: name in the model -> class, of modules that are ours now.
        left: name -> why, of modules that are known to be heavy and stayed as they were.
    """

    replaced: dict[str, str] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        counts: dict[str, int] = {}
        for kind in self.replaced.values():
            counts[kind] = counts.get(kind, 0) + 1
        lines = ["replaced: " + (", ".join(f"{count} {kind}" for kind, count in sorted(counts.items())) or "nothing")]
        lines += [f"left: {name or 'the model itself'}: {reason}" for name, reason in self.left.items()]
        return "\n".join(lines)


def accelerate(model: Model, what: str = "inference", *, inplace: bool = True) -> Model:
    """Make the heavy modules of a model ours: the same function, parameters and state dict, other code.

    For models of nequip (built, from a checkpoint or a package), of SevenNet, and for any tree with e3nn's modules.
    What was replaced and what could not be is in the attribute ``acceleration`` of the model that is returned, an
    :class:`Acceleration`. Where forces come of positions, gradients by the vectors of single edges, which no output
    shows, are those of both edges of a pair together; those by nequip's ``node_attrs`` lack what self-connections add,
    which goes to the type embedding at once.

    Args:
        model: any module.
        what: "train" leaves modes and parameters as they are; "inference" puts the model into evaluation mode and its
            parameters no longer ask for gradients (those by positions remain).
        inplace: change ``model``, or else a copy.

    Returns:
        The model, or the copy.

    Raises:
        InputError: no such purpose, or nothing in the model could be replaced.
    """
    if what not in PURPOSES:
        raise InputError(f"what={what!r}, expected one of {', '.join(PURPOSES)}{nearest(str(what), PURPOSES)}")
    if not inplace:
        model = copied(model)
    report = Acceleration()
    for name, module in _heavy(model, ""):
        kind = _kind(module)
        try:
            if kind in _NO_REPLACEMENT:
                raise InputError(_NO_REPLACEMENT[kind])
            if isinstance(module, torch.jit.ScriptModule):
                raise InputError("it is TorchScript, whose code is fixed; give the model before torch.jit")
            REPLACEMENTS[kind].adopt(module)
        except InputError as error:
            report.left[name] = f"{kind[1]}: {error}"
        else:
            report.replaced[name] = ".".join(kind)
    for module in model.modules():
        if isinstance(module, theirs.IrrepsConvolution):
            module.whole = (model,)
    if not report.replaced and not any(isinstance(module, Adoptable) for module in model.modules()):
        reasons = "; ".join(f"{name}: {reason}" for name, reason in report.left.items())
        raise InputError(
            f"a model of class {type(model).__name__} has nothing to accelerate"
            + (f" ({reasons})" if reasons else ": no module of nequip, SevenNet or e3nn")
        )
    if what == "inference":
        model.eval().requires_grad_(False)
    model.acceleration = report  # type: ignore[assignment]
    return model


def _heavy(module: nn.Module, name: str) -> Iterator[tuple[str, nn.Module]]:
    """(name, module) of all that are known, parents first; nothing inside of those that are ours by then."""
    if _kind(module) in REPLACEMENTS or _kind(module) in _NO_REPLACEMENT:
        yield name, module
    for key, child in module.named_children():
        if not isinstance(module, Adoptable) or key in module.parts_in_use:
            yield from _heavy(child, f"{name}.{key}" if name else key)


def _kind(module: nn.Module) -> tuple[str, str]:
    """(package, class), without the prefixes that torch.package and TorchScript give."""
    if isinstance(module, torch.jit.ScriptModule):
        _, package, *inside = str(module._c._type().qualified_name()).split(".")
        return package, inside[-1] if inside else package
    path = type(module).__module__
    if path.startswith("<torch_package_"):
        path = path.partition(">.")[2]
    return path.partition(".")[0], type(module).__name__
