"""Settings for the whole suite, and the instruction sets as a fixture."""

import pytest
import torch

from nequip_fast.errors import InputError
from tests.helpers import KERNELS

torch.set_num_threads(1)  # on structures this small a second thread only waits


@pytest.fixture(autouse=True)
def _same_start():
    """Every test starts from one seed and leaves no setting behind."""
    from nequip_fast.ops import get_backend, set_backend

    torch.manual_seed(0)
    backend, dtype, threads = get_backend(), torch.get_default_dtype(), torch.get_num_threads()
    if KERNELS != "cpu":
        set_backend(KERNELS)
    yield
    set_backend(backend)
    torch.set_num_threads(threads)
    torch.set_default_dtype(dtype)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    """Whether the paths of a test have CUDA kernels is for the library to say; the others are Triton's."""
    try:
        return (yield)
    except InputError as error:
        if KERNELS != "cuda" or "no kernel is compiled" not in str(error):
            raise
        pytest.skip(str(error))


@pytest.fixture(params=["plain", "avx2", "avx512"] if KERNELS == "cpu" else [KERNELS])
def isa(request):
    """Run the test once with each instruction set that this processor has, where kernels for it are tested."""
    if request.param == KERNELS:
        yield KERNELS
        return
    if "avx2" not in torch.ops.nequip_fast.build_info() and request.param != "plain":
        pytest.skip("this build has only plain kernels")
    before = torch.ops.nequip_fast.cpu_isa()
    try:
        torch.ops.nequip_fast.set_cpu_isa(request.param)
    except RuntimeError:
        pytest.skip(f"this processor has no {request.param}")
    yield request.param
    torch.ops.nequip_fast.set_cpu_isa(before)


@pytest.fixture(params=["triton", "cuda"] if torch.cuda.is_available() else [KERNELS])
def each_kernel(request):
    """Run the test with every backend that has kernels for this machine, or the one whose kernels are tested."""
    from nequip_fast.ops import set_backend

    set_backend(request.param)  # _same_start sets it back
