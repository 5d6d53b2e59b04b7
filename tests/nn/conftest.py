"""float64 by default: an oracle built in float32 keeps float32 Clebsch-Gordan constants."""

import pytest
import torch


@pytest.fixture(autouse=True)
def _float64(_same_start):
    torch.set_default_dtype(torch.float64)
