"""docs/reference/accuracy.md says how accurate the predictions were: as many runs and errors as the raw results hold."""

import re
import statistics
from pathlib import Path

import pytest

from benchmarks.memory.measured import errors, records
from benchmarks.memory.tables import FILES

REPOSITORY = Path(__file__).resolve().parents[2]
ROW = re.compile(r"^\| (\w+) \| [^|]+ \| (\d+) \| (\d+) \| ([\d.]+%) \| ([\d.]+%) \|$", re.MULTILINE)
ROWS = ROW.findall((REPOSITORY / "docs" / "reference" / "accuracy.md").read_text(encoding="utf-8"))


def test_the_tables_have_every_set_of_one_gpu_and_what_was_drawn_for_two() -> None:
    assert [row[0] for row in ROWS] == [name for name, gpus in FILES if gpus == 1 or (name, 1) not in FILES]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_a_row_is_what_was_measured(row: tuple[str, ...]) -> None:
    file = FILES.get((row[0], 1)) or FILES[row[0], 2]
    measured = records(REPOSITORY / "benchmarks" / "results" / file)
    found = [abs(errors(record["predicted"], record["measured"])["allocated"][0]) for record in measured]
    within = sum(error <= 0.015 for error in found)
    assert row[1:] == (str(len(found)), str(within), f"{statistics.median(found):.2%}", f"{max(found):.1%}")
