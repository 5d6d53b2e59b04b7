"""Peak memory of the convolution, measured in a process of its own."""

import sys
from dataclasses import replace

import pytest

from bench.memory import extra_bytes, messages_bytes, needed_bytes
from bench.problems import CASES


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("mode", ["forward", "forward+backward"])
def test_no_tensor_of_messages(mode):
    """Beyond outputs and gradients a call takes far less than one [E, dim_out], kernel scratch included."""
    case = replace(CASES["conv-M"], edges=20_000)
    extra = extra_bytes(case, "nequip_fast", mode) - needed_bytes(case, mode)
    assert extra < 0.1 * messages_bytes(case)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_measurement_sees_messages():
    """e3nn forms them, so the measurement must find them."""
    case = replace(CASES["conv-M"], edges=5_000)
    assert extra_bytes(case, "e3nn", "forward") > messages_bytes(case)
