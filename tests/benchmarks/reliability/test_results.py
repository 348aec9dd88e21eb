"""The table of trials in docs/checkpoints.md has the counts of the raw lines."""

import json
import re
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[3]
RESULTS = REPOSITORY / "benchmarks" / "results" / "reliability"
ROW = re.compile(r"\| (?P<held>\d+) of (?P<landed>\d+) \| `(?P<file>\w+\.jsonl)` \|$", re.MULTILINE)


def test_the_page_has_the_counts_of_the_raw_lines() -> None:
    page = (REPOSITORY / "docs" / "checkpoints.md").read_text(encoding="utf-8")
    rows = {row["file"]: (int(row["held"]), int(row["landed"])) for row in ROW.finditer(page)}
    assert set(rows) == {path.name for path in RESULTS.glob("*.jsonl")}
    assert rows == {name: counts(RESULTS / name) for name in rows}


def counts(path: Path) -> tuple[int, int]:
    """Trials that held, and trials in which the fault met its moment; restarts.py needs no moment."""
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    landed = [line for line in lines if not line.get("broken", False) and line.get("landed", True)]
    return sum(line["held"] for line in landed), len(landed)
