"""The committed table of the three ways to form radial weights on a GPU."""

from pathlib import Path

from bench.radial_variants import table


def test_the_table_is_what_the_script_counts():
    path = Path(__file__).parents[2] / "bench" / "results" / "radial-variants.md"
    assert path.read_text(encoding="utf-8") == table()
