"""Triton's kernels keep to the registers that bench/results/kernel-resources.csv says they take."""

from pathlib import Path

import pytest

pytest.importorskip("triton")

from nequip_fast.ops import backend

TABLE = Path(__file__).parents[2] / "bench" / "results" / "kernel-resources.csv"


@pytest.mark.skipif(backend.INTERPRETED, reason="interpreted kernels are not compiled")
@pytest.mark.parametrize("case", ["conv-S", "conv-M", "harmonics-l3", "gate-M"])
def test_no_kernel_spills_more_than_the_table_allows(case):
    """On an H100; `python bench/kernel_resources.py` has all cases and makes the table."""
    from bench.kernel_resources import KINDS, launches, read, resources

    allowed = {(row["kernel"], row["of"]): row for row in read(TABLE) if (row["case"], row["sm"]) == (case, "90")}
    for launch in launches(KINDS[case]):
        found = resources(launch, 90)
        assert found["spilled_bytes"] <= int(allowed[launch.kernel.__name__, launch.what]["spilled_bytes"])
