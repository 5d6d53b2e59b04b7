"""One adapter per contender: what it can run, and the calls to be timed.

An adapter is a module with ``NAME``, ``missing() -> str | None`` (why it cannot run here) and any of

* ``conv(case, dtype, device) -> (x, y, w) -> out``
* ``harmonics(case, dtype, device) -> vectors -> Y``
* ``model(case, dtype, device) -> (model, data)``, the model computing energy and forces of the data

``DIFFERENTIATES_TWICE = False`` leaves it out of second derivatives.

A contender that lacks one of them is left out of those cases.
"""

from __future__ import annotations

from types import ModuleType

from bench.peers import e3nn, e3nn_compiled, nequip, ours, reference

PEERS: dict[str, ModuleType] = {peer.NAME: peer for peer in (ours, reference, e3nn, e3nn_compiled, nequip)}
OURS = ours.NAME
