"""Triton's kernels keep to the registers that bench/results/kernel-resources.csv says they take."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

triton = pytest.importorskip("triton")

from nequip_fast.ops import backend  # noqa: E402


@pytest.mark.skipif(backend.INTERPRETED, reason="interpreted kernels are not compiled")
@pytest.mark.parametrize("case", ["conv-M", "harmonics-l3", "gate-M", "product-uvu", "self-connection-S-1000"])
def test_nothing_is_compiled_again_for_another_number_of_atoms(case):
    """What a kernel is compiled for does not depend on it, nor do the block sizes; numbers are not specialised on."""
    from bench.kernel_resources import KINDS, launches

    some, more = KINDS[case], replace(KINDS[case], **{_SIZES.get(KINDS[case].kind, "rows"): 7_001})
    for one, other in zip(launches(some), launches(more), strict=True):
        assert (one.kernel, one.fixed, one.tiles) == (other.kernel, other.fixed, other.tiles)
        names = one.kernel.arg_names
        numbers = [n for n, a in zip(names, one.arguments, strict=False) if not isinstance(a, torch.Tensor)]
        assert set(numbers) <= set(one.kernel.do_not_specialize)


_SIZES = {"conv": "edges", "harmonics": "edges"}
TABLE = Path(__file__).parents[2] / "bench" / "results" / "kernel-resources.csv"


@pytest.mark.skipif(backend.INTERPRETED, reason="interpreted kernels are not compiled")
@pytest.mark.skipif(not triton.__version__.startswith("3.9"), reason="the table is of Triton 3.9")
@pytest.mark.parametrize("case", ["conv-S", "conv-M", "harmonics-l3", "gate-M", "engine-M"])
def test_no_kernel_spills_more_than_the_table_allows(case):
    """On an H100; `python bench/kernel_resources.py` has all cases and makes the table."""
    from bench.kernel_resources import KINDS, launches, read, resources

    rows = [row for row in read(TABLE) if (row["triton"][:3], row["case"], row["sm"]) == ("3.9", case, "90")]
    allowed = {(row["kernel"], row["of"], row["part"]): int(row["spilled_bytes"]) for row in rows}
    for launch in launches(KINDS[case]):
        spilled = resources(launch, 90)["spilled_bytes"]
        assert spilled <= allowed[launch.kernel.__name__, launch.what, str(launch.part)]


@pytest.mark.skipif(backend.INTERPRETED, reason="a rule of thumb of its own")
def test_shipped_block_sizes_are_of_this_version():
    """Each entry of the table is of a kernel of the named problems, and a tile that it may have."""
    from bench.kernel_resources import KINDS, launches
    from bench.tune import DEFAULT
    from nequip_fast.kernels import tuning

    known = {launch.problem: launch.tiles for case in DEFAULT for launch in launches(KINDS[case])}
    table = tuning._read(tuning.SHIPPED)
    assert {"A100", "H100"} <= set(table)
    for entries in table.values():
        assert all(entry["tile"] in known[problem] for problem, entry in entries.items())
