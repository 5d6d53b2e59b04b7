"""Choice of backend, and what info() says about it."""

import os
import subprocess
import sys

import pytest
import torch

import nequip_fast
from nequip_fast.errors import InputError
from nequip_fast.ops import ConvProblem, backend, conv, segment_sum
from tests.helpers import random_graph


def test_the_extension_is_built():
    """Everything below, and every speed, rests on it."""
    assert backend.NOT_LOADED is None
    assert torch.ops.nequip_fast.cpu_isa() in ("plain", "avx2", "avx512")


def test_info_names_backend_and_reason():
    """One line per operator and device."""
    info = nequip_fast.info()
    assert info["operators"]["conv"]["cpu"] == "cpu: compiled kernel"
    if backend.has_cuda_kernels():
        expected = "cuda: compiled kernel"
    elif backend.NO_TRITON is None:
        expected = "triton: kernel compiled when first called"
    else:
        expected = f"reference: cuda: the extension was built without nvcc; triton: {backend.NO_TRITON}"
    assert info["operators"]["conv"]["cuda"] == expected
    nequip_fast.set_backend("reference")
    assert nequip_fast.info()["operators"]["conv"]["cpu"] == "reference: chosen by name"


def test_traces_take_triton_before_cuda():
    """Its kernels become part of what torch exports, which then needs no library of ours."""
    orders = []

    def function(x):
        orders.append(list(backend._in_order("cuda")))
        return x + 1

    function(torch.ones(2))
    torch.fx.experimental.proxy_tensor.make_fx(function)(torch.ones(2))
    assert orders == [["cuda", "triton"], ["triton", "cuda"]]


def test_plain_torch_is_never_silent():
    """Where ``auto`` has to do without a kernel, one warning says so and why."""
    problem = ConvProblem.from_irreps("0e", "0e", "0e", [(0, 0, 0)])
    x, y, w = (torch.ones(rows, 1, dtype=torch.bfloat16) for rows in (3, 5, 5))
    backend._say_once.cache_clear()
    with pytest.warns(UserWarning, match=r"conv runs as plain torch on cpu.*float32 or float64, not torch.bfloat16"):
        conv(x, y, w, random_graph(3, 5), problem)


def test_unknown_backend_suggests_the_nearest():
    """A typo is answered with what was probably meant."""
    with pytest.raises(InputError, match=r"unknown backend 'refrence'.*did you mean 'reference'\?"):
        nequip_fast.set_backend("refrence")


def test_unknown_backend_in_the_environment():
    """The command says so in one sentence; the import does not fail."""
    command = [sys.executable, "-m", "nequip_fast.cli", "info"]
    result = subprocess.run(
        command, env={**os.environ, "NEQUIP_FAST_BACKEND": "refrence"}, capture_output=True, text=True, check=False
    )
    assert result.returncode == 2
    assert result.stderr.startswith("error: NEQUIP_FAST_BACKEND: unknown backend 'refrence'")
    assert len(result.stderr.splitlines()) == 1


def test_use_backend_restores_after_an_error():
    """A failing block does not leave its backend behind."""

    def fails():
        with nequip_fast.use_backend("reference"):
            assert nequip_fast.get_backend() == "reference"
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fails()
    assert nequip_fast.get_backend() == "auto"


def test_triton_asked_for_by_name_says_what_it_needs():
    """A GPU, or interpreted kernels."""
    reason = "the inputs are on cpu" if backend.NO_TRITON is None else backend.NO_TRITON
    with nequip_fast.use_backend("triton"), pytest.raises(InputError, match=f"cannot run segment_sum: {reason}"):
        segment_sum(torch.ones(5, 2), random_graph(3, 5))


@pytest.mark.filterwarnings("ignore:nequip_fast")
def test_half_precision_is_refused_by_name():
    """The compiled kernels take float32 and float64; asked for by name, they say so."""
    graph = random_graph(3, 5)
    m = torch.ones(5, 2, dtype=torch.bfloat16)
    with nequip_fast.use_backend("cpu"), pytest.raises(InputError, match=r"float32 or float64, not torch\.bfloat16"):
        segment_sum(m, graph)
    assert segment_sum(m, graph).dtype == torch.bfloat16


def test_unknown_instruction_set():
    """Asking for what the processor lacks is an error."""
    with pytest.raises(RuntimeError, match="cannot run instruction set 'avx1024'"):
        torch.ops.nequip_fast.set_cpu_isa("avx1024")
