"""One rank whose allocator writes down what it does: `python stage_blocks_rank.py OUT RUN_FOLDER`, in the place of `python -m trainers RUN_FOLDER`.

OUT (gzip, JSON) gets `marks`, the allocator's figures where each phase ends (trainers/measures/phases.py), and `events`: blocks of at least LEAST
bytes taken and freed, and pages mapped, each with the place in Python that asked for it.
"""

import gzip
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import torch

from trainers.__main__ import main
from trainers.measures.phases import Peaks

LEAST, MOST = 4 * 2**20, 2_000_000  # bytes of a block that is kept; events that the allocator remembers
MARKED = {
    "allocated": "allocated_bytes.all.current",
    "reserved": "reserved_bytes.all.current",
    "most_reserved": "reserved_bytes.all.peak",
    "split": "inactive_split_bytes.all.current",
    "small": "reserved_bytes.small_pool.current",
}
PLACES = ("trl/", "trainers/", "transformers/", "torch/optim/", "torch/nn/functional", "bitsandbytes/", "peft/")
marks: list[list[Any]] = []


def mark(phase: str) -> None:
    there = torch.cuda.is_available()
    statistics = torch.cuda.memory_stats() if there else {}
    marks.append([int(time.time() * 1e6), phase, *(statistics.get(name, 0) for name in MARKED.values())])


def place(frames: list[dict[str, Any]]) -> str:
    """The innermost three places in libraries that say what a block is for."""
    found = [f"{Path(frame['filename']).name}:{frame['line']}" for frame in frames if any(part in frame["filename"] for part in PLACES)]
    return " < ".join(found[:3])


def events() -> list[list[Any]]:
    if not torch.cuda.is_available():
        return []
    every = [event for event in torch.cuda.memory._snapshot()["device_traces"][0] if event["action"] not in ("oom", "snapshot")]
    kept = [event for event in every if event["size"] >= LEAST or event["action"].startswith("segment")]
    return [[event["time_us"], event["action"], event["addr"], event["size"], event["stream"], place(event.get("frames", []))] for event in kept]


if __name__ == "__main__":
    out = Path(sys.argv.pop(1))
    if torch.cuda.is_available():
        torch.cuda.memory._record_memory_history(context="alloc", stacks="python", max_entries=MOST)
    end = Peaks.end

    def end_marked(peaks: Peaks, phase: str) -> None:
        mark(phase)
        end(peaks, phase)

    Peaks.end = end_marked  # type: ignore[method-assign]
    code = main()
    with gzip.open(out, "wt") as file:
        json.dump({"columns": ["time", "phase", *MARKED], "marks": marks, "events": events()}, file)
    os._exit(code)
