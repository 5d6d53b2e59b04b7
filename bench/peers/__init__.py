"""One adapter per contender: what it can run, and the calls to be timed.

An adapter is a module with ``NAME``, ``missing() -> str | None`` (why it cannot run here) and any of

* ``conv(case, dtype, device) -> (x, y, w) -> out`` and ``harmonics(case, dtype, device) -> vectors -> Y``, or
  ``conv_calls``, ``harmonics_calls(case, dtype, device)`` with ready calls for a contender whose conventions differ
* ``module(case, dtype, device) -> torch.nn.Module``
* ``model(case, dtype, device) -> (model, data)``, the model computing energy and forces of the data

``DEVICES``: those that a library of kernels is for; where it fails in a case it is left out, and the reason kept.
``DIFFERENTIATES_TWICE = False`` leaves it out of second derivatives. ``FAMILY`` joins contenders of which the faster
one counts: e3nn eager and e3nn compiled are both e3nn. A contender that lacks one of the functions is left out of
those cases; one that cannot run a certain case raises :class:`bench.calls.NotOffered` with the reason, and
``left_out(case, mode, device) -> str | None`` says why one mode of a case is not run.
"""

from __future__ import annotations

from types import ModuleType

from bench.peers import (
    cuequivariance,
    cuequivariance_fused_tp,
    e3nn,
    e3nn_compiled,
    lunaequivariance,
    nequip,
    openequivariance,
    ours,
    reference,
    sphericart,
    sphericart_jacobian,
)

PEERS: dict[str, ModuleType] = {
    peer.NAME: peer
    for peer in (
        ours, reference, e3nn, e3nn_compiled, sphericart, sphericart_jacobian, nequip,
        openequivariance, cuequivariance, cuequivariance_fused_tp, lunaequivariance,
    )
}  # fmt: skip
OURS = ours.NAME
FAMILIES = {name: peer.FAMILY for name, peer in PEERS.items() if hasattr(peer, "FAMILY")}
