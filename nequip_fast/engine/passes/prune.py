"""Features that never reach an energy are not computed.

In a model with both parities the last layer gives even scalars; half of what the layer before could give it cannot use.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import torch

from nequip_fast.engine.program import Layer, LinearMap, Program, RadialNetwork


def prune(program: Program) -> Program:
    """Without segments, paths and linear maps on which no energy depends; from the last layer backwards."""
    outputs: list[list[int]] = []  # of each layer, the segments that are kept
    wanted = set(range(len(program.layers[-1].gate)))
    for layer in reversed(program.layers):
        while layer.residual and not _Used(layer, wanted).inputs <= wanted:  # the sum is of equal rows
            wanted |= _Used(layer, wanted).inputs
        outputs.insert(0, sorted(wanted))
        wanted = wanted if layer.residual else _Used(layer, wanted).inputs
    inputs = [[0], *outputs[:-1]]  # the embedding is one segment
    layers = [_layer(*each) for each in zip(program.layers, inputs, outputs, strict=True)]
    return replace(program, layers=layers)


def _layer(layer: Layer, inputs: Sequence[int], outputs: Sequence[int]) -> Layer:
    """The layer that takes and gives these of its segments alone."""
    used = _Used(layer, outputs)
    assert isinstance(layer.radial, RadialNetwork)
    paths = [path for path in layer.paths if path.target in used.summed]
    columns = torch.cat([torch.arange(path.first, path.first + layer.sent[path.source].mul) for path in paths])
    starts = torch.tensor([0] + [layer.sent[path.source].mul for path in paths]).cumsum(0).tolist()
    before, summed, sent = (_Renumbered(kept) for kept in (used.before, used.summed, used.sent))
    return replace(
        layer,
        sent=sent.of(layer.sent),
        summed=summed.of(layer.summed),
        before_gate=before.of(layer.before_gate),
        radial=_columns(layer.radial, columns),
        paths=[
            replace(path, source=sent[path.source], target=summed[path.target], first=first)
            for path, first in zip(paths, starts, strict=False)
        ],
        mix=_maps(layer.mix, summed, before),
        gate=[
            replace(step, source=before[step.source], gate=step.gate if step.gate < 0 else before[step.gate])
            for step in (layer.gate[i] for i in outputs)
        ],
        send=_maps(layer.send, _Renumbered(inputs), sent),
        self_connection=_maps(layer.self_connection, _Renumbered(inputs), before),
    )


class _Used:
    """Segments of a layer on which some of its outputs depend."""

    def __init__(self, layer: Layer, outputs: Iterable[int]) -> None:
        steps = [layer.gate[i] for i in outputs]
        self.before = {step.source for step in steps} | {step.gate for step in steps if step.gate >= 0}
        self.summed = {linear.source for linear in layer.mix if linear.target in self.before}
        self.sent = {path.source for path in layer.paths if path.target in self.summed}
        self.inputs = {linear.source for linear in layer.send if linear.target in self.sent}
        self.inputs |= {linear.source for linear in layer.self_connection if linear.target in self.before}


class _Renumbered(dict[int, int]):
    """Old number -> new number of what is kept."""

    def __init__(self, kept: Iterable[int]) -> None:
        super().__init__({old: new for new, old in enumerate(sorted(kept))})

    def of(self, items: Sequence) -> list:
        return [items[old] for old in self]


def _maps(maps: Sequence[LinearMap], sources: _Renumbered, targets: _Renumbered) -> list[LinearMap]:
    return [
        replace(linear, source=sources[linear.source], target=targets[linear.target])
        for linear in maps
        if linear.source in sources and linear.target in targets
    ]


def _columns(network: RadialNetwork, columns: torch.Tensor) -> RadialNetwork:
    *hidden, last = network.matrices
    return replace(network, matrices=[*hidden, last[:, columns]])
