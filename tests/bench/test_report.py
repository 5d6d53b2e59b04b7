"""Roofline and report: counts by hand, means against targets, the README's table."""

import json

import pytest
import torch

from bench.calls import FORWARD
from bench.problems import ConvCase
from bench.report import markdown, means, overview, roof_misses, summary, write_overview
from bench.roofline import Peaks, Work, cg_counts, conv_work, shares

SCALARS = ConvCase("conv-test", "", "2x0e", "0e", "0e", edges=10, neighbours=5)


@pytest.mark.parametrize(("degrees", "counts"), [((0, 0, 0), (1, 1)), ((1, 1, 0), (3, 3)), ((1, 1, 1), (6, 6))])
def test_nonzero_coefficients(degrees, counts):
    """1·1 is one product, the scalar product three, the vector product six terms."""
    assert cg_counts(*degrees) == counts


def test_work_of_scalars():
    """One path of scalars on two channels: all that is read, written and multiplied."""
    work = conv_work(SCALARS, element=4)[FORWARD]
    # an edge: the harmonic times the coefficient, and for each channel w·x and its product with that
    assert work.fma == 10 * (1 + 2 * (1 + 1))
    # 2 nodes of 2 channels, and for each edge one harmonic, two weights and two indices packed in 8 bytes
    assert work.read == 4 * (2 * 2 + 10 * (1 + 2)) + 8 * 10
    assert work.written == 4 * 2 * 2


def test_shares_and_the_roof_that_binds():
    """Rates between two measured sizes are interpolated; the slower resource binds."""
    peaks = Peaks(1, {"float32": 1e9}, [100, 400], [1e9, 0.5e9], [1e9, 0.5e9])
    assert peaks.seconds_of_bytes(200, 0) == pytest.approx(200 / 0.75e9)
    assert peaks.seconds_of_bytes(1000, 0) == pytest.approx(1000 / 0.5e9)
    result = shares(Work(fma=1000, read=1000, written=0), 4e-6, "float32", peaks)
    assert result["fma_share"] == pytest.approx(0.25)
    assert result["bytes_share"] == pytest.approx(0.5)
    assert result["binding"] == "bytes"


def row(case: str, times: float, share: float = 0.5) -> dict:
    """A forward row in which eager e3nn takes ``times`` as long as we do and compiled e3nn one time more."""
    ratio = {"median": times, "low": times, "high": times}
    return {
        "case": case, "kind": "conv", "mode": FORWARD, "dtype": "float32", "rounds": 5,
        "milliseconds": {"nequip_fast": 1.0, "e3nn": times, "e3nn-compiled": times + 1},
        "times_slower": {"e3nn": ratio, "e3nn-compiled": {**ratio, "median": times + 1}},
        "best": {"e3nn": "e3nn"}, "absent": {"reference": "not asked for"},
        "roofline": {"gfma": 1.0, "megabytes": 1.0, "fma_share": share, "bytes_share": 0.1, "binding": "FMA",
                     "edges": 9},
    }  # fmt: skip


@pytest.fixture
def report() -> dict:
    """Two cases, one of them slow and far from the roof."""
    machine = {"processor": "a processor", "threads": 2, "cpu_isa": "plain", "versions": {}, "date": "today"}
    rows = [row("conv-S", 100.0), row("conv-M", 4.0, share=0.2)]
    return {"machine": machine, "load_before": 0.0, "quick": False, "peaks": None, "rows": rows}


def test_means_and_targets(report):
    """Geometric mean, lowest case by name, and what was missed."""
    (mean,) = means(report["rows"])
    assert mean.mean == pytest.approx(20)
    assert (mean.lowest, mean.lowest_case) == (4.0, "conv-M")
    assert mean.verdict == "mean ≥ 40× MISSED, lowest ≥ 5× MISSED"
    assert roof_misses(report["rows"]) == ["conv-M float32: 20% of FMA"]


def test_texts(report, tmp_path):
    """Both forms name the cases and what was left out; the README keeps what is around its marks."""
    for text in (summary(report), markdown(report)):
        assert "20×" in text
        assert "reference: not asked for" in text
    results, readme = tmp_path / "cpu.json", tmp_path / "README.md"
    results.write_text(json.dumps(report))
    readme.write_text("before <!-- speed: written by bench/report.py --> old <!-- end of speed --> after")
    write_overview(results, readme)
    text = readme.read_text()
    assert text.startswith("before ")
    assert text.endswith(" after")
    assert overview(report) in text
    assert "old" not in text


def test_peaks_are_measured():
    """The microbenchmark compiles and its numbers are of this world."""
    from bench.roofline import measure_peaks

    peaks = measure_peaks(1)
    assert peaks is not None
    assert peaks.fma["float32"] > peaks.fma["float64"] > 1e8
    assert min(peaks.read) > 1e8
    assert torch.get_num_threads() == 1
