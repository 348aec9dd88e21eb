"""journal.jsonl: what happened to a run, one line an event, never rewritten."""

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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
    return list(json_lines(run_dir.journal))


def json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Every whole line of a file that may still be growing; a torn last line is left for later."""
    if not path.exists():
        return
    with path.open(encoding="utf-8") as file:
        for line in file:
            if line.endswith("\n"):
                yield json.loads(line)
