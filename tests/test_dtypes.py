"""The context that modules are built in."""

import pytest
import torch

from nequip_fast.dtypes import default_dtype


def test_default_dtype_is_put_back():
    """After an error too, and where the block sets another."""
    before = torch.get_default_dtype()
    with pytest.raises(RuntimeError, match="on purpose"), default_dtype(torch.float64):  # noqa: PT012
        assert torch.zeros(1).dtype == torch.float64
        torch.set_default_dtype(torch.float16)
        raise RuntimeError("on purpose")
    assert torch.get_default_dtype() == before
