"""What the benchmark of the first step reads out of a run's own records."""

import json
from pathlib import Path
from typing import Any

from benchmarks.speed.first_step import least, measured


def written(path: Path, entries: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))


def test_a_start_ends_with_the_first_step_and_a_step_is_the_middle_one_of_the_later(tmp_path: Path) -> None:
    written(tmp_path / "journal.jsonl", [{"event": "start", "time": 101.0}, {"event": "committed", "time": 130.0}])
    said = [(103.0, "loading libraries"), (109.0, "loading weights"), (114.0, "training"), (120.0, "saving the model")]
    written(tmp_path / "layout" / "doing.jsonl", [{"time": time, "doing": doing} for time, doing in said])
    ends = [114.0, 115.0, 116.5, 118.5, 118.6]  # the last line comes with the one before it
    written(tmp_path / "progress.jsonl", [*({"time": end, "loss": 1.0} for end in ends), {"time": 119.0, "eval_loss": 1.0}])
    record = measured(tmp_path, began=100.0)
    assert record == {
        "start_seconds": 14.0,
        "phases": {"the command until its ranks are started": 1.0, "starting the ranks": 2.0, "loading libraries": 6.0, "loading weights": 5.0},
        "step_seconds": 1.75,
    }
    assert least({**record, "import_seconds": 5.0, "read_seconds": 1.25}) == 8.0
