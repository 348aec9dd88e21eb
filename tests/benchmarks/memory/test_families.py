"""What one H200 measured of families without a table, and the page of cells that were drawn."""

from pathlib import Path

from benchmarks.memory.before import SETS, SINCE, section
from benchmarks.memory.measured import records

RESULTS = Path(__file__).resolve().parents[3] / "benchmarks" / "results" / "memory" / "h200_families.jsonl"


def test_every_measured_cell_lies_within_the_uncertainty_that_was_stated() -> None:
    there = records(RESULTS)
    assert len(there) == 52
    for record in there:
        predicted = record["predicted_there"] if record["cell"] in SINCE else record["predicted"]
        off = max(rank["allocated"] for rank in record["measured"]) / predicted["allocated"] - 1
        assert abs(off) <= (0.001 if record["cell"] in SINCE else predicted["uncertainty"]["share"]), record["cell"]


def test_the_page_has_every_cell_once_that_was_measured_ended_or_is_left() -> None:
    page = (RESULTS.parents[3] / "docs" / "reference" / "measured_drawn.md").read_text(encoding="utf-8")
    for name, title in SETS.items():
        assert "\n".join(section(RESULTS.with_name(name), title)) in page
        assert all(f"| {record['cell']} |" in page for record in records(RESULTS.with_name(name)))
