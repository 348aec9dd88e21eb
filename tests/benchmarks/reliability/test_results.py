"""The table of trials in docs/concepts/checkpoints.md has the counts of the raw lines."""

import json
import re
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[3]
RESULTS = REPOSITORY / "benchmarks" / "results" / "reliability"
COST = "save_cost.jsonl"  # has no trials: what a save takes
ROW = re.compile(r"\| (?P<held>\d+) of (?P<landed>\d+) \| `(?P<file>\w+\.jsonl)` \|$", re.MULTILINE)


def test_the_page_has_the_counts_of_the_raw_lines() -> None:
    page = (REPOSITORY / "docs" / "concepts" / "checkpoints.md").read_text(encoding="utf-8")
    rows = {row["file"]: (int(row["held"]), int(row["landed"])) for row in ROW.finditer(page)}
    assert set(rows) == {path.name for path in RESULTS.glob("*.jsonl")} - {COST}
    assert rows == {name: counts(RESULTS / name) for name in rows}


def test_the_page_has_what_saving_costs() -> None:
    page = (REPOSITORY / "docs" / "concepts" / "checkpoints.md").read_text(encoding="utf-8")
    [line] = [json.loads(line) for line in (RESULTS / COST).read_text(encoding="utf-8").splitlines()]
    costs = [save["cost"] for save in line["saves"]]
    assert len(costs) == 3
    shown = (f"{line['bytes'] / 1e9:.1f} GB every {line['interval_steps']} steps", f"{line['interval_seconds']:.1f} s", f"{line['raw_seconds']} s")
    assert all(text in page for text in (*shown, f"{min(costs):.1f} to {max(costs):.1f} s each", f"{line['overhead']:.1%} of".replace("%", " %")))


def counts(path: Path) -> tuple[int, int]:
    """Trials that held, and trials in which the fault met its moment; restarts.py needs no moment."""
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    landed = [line for line in lines if not line.get("broken", False) and line.get("landed", True)]
    return sum(line["held"] for line in landed), len(landed)
