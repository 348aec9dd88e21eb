"""journal.jsonl: what happened to a run, one line an event, never rewritten."""

import json
import os
import time
from typing import Any

from conf.records import is_event, read_lines
from conf.run_dir import RunDir, cut_torn_line


def record(run_dir: RunDir, event: str, **facts: Any) -> None:
    """Append one event and make it durable."""
    line = json.dumps({"time": round(time.time(), 3), "event": event, **facts}) + "\n"
    cut_torn_line(run_dir.journal)
    with run_dir.journal.open("a", encoding="utf-8") as file:
        file.write(line)
        file.flush()
        os.fsync(file.fileno())


def events(run_dir: RunDir) -> list[dict[str, Any]]:
    """Damaged lines are left out; `regimen status` counts them."""
    return read_lines(run_dir.journal, is_event).entries
