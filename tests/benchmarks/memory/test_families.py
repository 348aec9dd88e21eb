"""What one H200 measured of families without a table lies within what their plans stated before."""

from pathlib import Path

from benchmarks.memory.tables import records

RESULTS = Path(__file__).resolve().parents[3] / "benchmarks" / "results" / "memory" / "h200_families.jsonl"


def test_every_measured_cell_lies_within_the_uncertainty_that_was_stated() -> None:
    there = records(RESULTS)
    assert len(there) >= 29
    for record in there:
        predicted = record["predicted"]
        off = max(rank["allocated"] for rank in record["measured"]) / predicted["allocated"] - 1
        assert abs(off) <= predicted["uncertainty"]["share"], record["cell"]
