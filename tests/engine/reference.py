"""What a program computes, in plain torch: the readable definition that compiled programs and passes are held to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from e3nn import o3
from torch import Tensor

from nequip_fast.data import keys
from nequip_fast.engine.program import NO_GATE, NORM, GateStep, Layer, LinearMap, Program, RadialBasis
from nequip_fast.ops.gate import ACTIVATIONS
from nequip_fast.ops.radial import polynomial_cutoff

Segments = list[Tensor]  # each [nodes, mul, 2l + 1]


def evaluate(program: Program, data: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Energy [B, 1], energies of atoms [N, 1], forces [N, 3] and, with a cell, virial and stress [B, 3, 3]."""
    edges, types = data[keys.EDGE_INDEX], data[keys.ATOM_TYPES].reshape(-1)
    batch = data.get(keys.BATCH, torch.zeros_like(types))
    count = int(batch.max()) + 1
    vectors = data[keys.POSITIONS][edges[1]] - data[keys.POSITIONS][edges[0]]
    if keys.CELL in data:
        cells = data[keys.CELL].reshape(-1, 3, 3)
        vectors = vectors + torch.einsum("ei,eij->ej", data[keys.EDGE_CELL_SHIFT], cells[batch[edges[0]]])
    vectors = vectors.detach().requires_grad_()
    energies = _energies(program, types, edges, vectors)
    total = energies.new_zeros(count).index_add(0, batch, energies)
    (gradient,) = torch.autograd.grad(total.sum(), vectors)
    forces = torch.zeros_like(data[keys.POSITIONS])
    forces = forces.index_add(0, edges[0], gradient).index_add(0, edges[1], -gradient)
    output = {keys.TOTAL_ENERGY: total[:, None], keys.ATOMIC_ENERGY: energies[:, None], keys.FORCES: forces}
    if keys.CELL in data:
        outer = vectors[:, :, None] * gradient[:, None, :]
        strain = vectors.new_zeros(count, 3, 3).index_add(0, batch[edges[0]], 0.5 * (outer + outer.transpose(1, 2)))
        output[keys.VIRIAL] = -strain
        output[keys.STRESS] = strain / torch.linalg.det(cells).abs()[:, None, None]
    return {name: value.detach() for name, value in output.items()}


def _energies(program: Program, types: Tensor, edges: Tensor, vectors: Tensor) -> Tensor:
    """Of each atom, [N]."""
    cutoff = program.cutoff[types[edges[0]], types[edges[1]]]
    within = torch.linalg.vector_norm(vectors, dim=1) < cutoff
    edges, vectors, cutoff = edges[:, within], vectors[within], cutoff[within]
    x = torch.linalg.vector_norm(vectors, dim=1) / cutoff
    y = o3.spherical_harmonics(list(range(program.l_max + 1)), vectors, True, "component")
    basis = radial_basis(program.basis, x)
    features = [program.embedding[types].unsqueeze(2)]
    for layer in program.layers:
        features = _layer(layer, features, types, edges, basis, y)
    scalars = torch.cat([segment.flatten(1) for segment in features], 1)
    for readout in program.readout:
        scalars = ACTIVATIONS[readout.activation](scalars @ readout.matrix)
    return program.shift[types] + program.scale[types] * scalars[:, 0]


def _layer(layer: Layer, features: Segments, types: Tensor, edges: Tensor, basis: Tensor, y: Tensor) -> Segments:
    """Features after the layer; of the edges ``basis`` [E, functions] and the harmonics ``y`` [E, (l_max + 1)²]."""
    nodes = len(types)
    sent = _zeros(nodes, [(channels.mul, channels.l) for channels in layer.sent])
    _add(layer.send, features, sent, types)
    weights = basis
    for matrix in layer.radial.matrices[:-1]:
        weights = layer.radial.constant * ACTIVATIONS[layer.radial.activation](weights @ matrix)
    if layer.radial.combinations is not None:
        weights = weights @ layer.radial.combinations
    weights = weights @ layer.radial.matrices[-1]
    summed: list[Segments] = [[] for _ in layer.summed]
    for path in layer.paths:
        l1, l2, l3, mul = layer.sent[path.source].l, path.l2, layer.summed[path.target], layer.sent[path.source].mul
        coupling = path.coefficient * o3.wigner_3j(l1, l2, l3, dtype=torch.float64)
        w, harmonics = weights[:, path.first : path.first + mul], y[:, l2**2 : (l2 + 1) ** 2]
        messages = torch.einsum("eu,eui,ej,ijk->euk", w, sent[path.source][edges[1]], harmonics, coupling)
        summed[path.target].append(messages.new_zeros(nodes, *messages.shape[1:]).index_add(0, edges[0], messages))
    before = _zeros(nodes, [(channels.mul, channels.l) for channels in layer.before_gate])
    _add(layer.mix, [torch.cat(parts, 1) for parts in summed], before, types)
    _add(layer.self_connection, features, before, types)
    out = [_gate(step, before) for step in layer.gate]
    return [a + b for a, b in zip(out, features, strict=True)] if layer.residual else out


def radial_basis(basis: RadialBasis, x: Tensor) -> Tensor:
    """[K] -> [K, frequencies]"""
    if basis.envelope.kind == "polynomial":
        envelope = polynomial_cutoff(x, basis.envelope.parameter)
    else:
        on, square = basis.envelope.parameter**2, x**2
        falling = (1 - square) ** 2 * (1 + 2 * square - 3 * on) / (1 - on) ** 3
        envelope = torch.where(x < basis.envelope.parameter, torch.ones_like(x), falling)
    return torch.sin(x[:, None] * basis.frequencies) * (basis.scale * envelope / x)[:, None]


def _zeros(nodes: int, channels: Sequence[tuple[int, int]]) -> Segments:
    return [torch.zeros(nodes, mul, 2 * l + 1, dtype=torch.float64) for mul, l in channels]


def _add(maps: Sequence[LinearMap], features: Segments, to: Segments, types: Tensor) -> None:
    for linear in maps:
        if linear.matrix.dim() == 3:
            product = torch.einsum("nui,nuv->nvi", features[linear.source], linear.matrix[types])
        else:
            product = torch.einsum("nui,uv->nvi", features[linear.source], linear.matrix)
        to[linear.target] = to[linear.target] + product


def _gate(step: GateStep, before: Segments) -> Tensor:
    x, function = before[step.source], ACTIVATIONS[step.activation]
    if step.gate == NO_GATE:
        return step.constant * function(x)
    if step.gate == NORM:
        norm = torch.linalg.vector_norm(x, dim=2, keepdim=True).clamp(min=1e-8)
        return step.constant * function(norm) * x / norm
    return step.constant * function(before[step.gate]) * x
