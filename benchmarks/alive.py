"""What is alive at the peak of one memory cell on a GPU: blocks by the lines that made them, largest first.

    python benchmarks/alive.py lora-dora-fused/qwen2.5_0.5b/4x1024 --bases FOLDER

The cell runs as memory_cells.py runs it; this script is its rank too, and follows every allocation (torch.cuda.memory._record_memory_history). With
tests/launcher/memory/tracing, which needs no GPU, it tells which term of an estimate is missing.
"""

import argparse
import json
import os
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from cell_runs import run_by
from memory_cells import BASES, GRIDS, overrides, write_samples
from memory_grid import write_shapes
from processes import environment_for

from launcher.compose import compose
from launcher.plan import judge_run
from trainers.__main__ import main as train

ENTRIES, SHOWN, FRAMES = 2_000_000, 40, 3
RANK, RESULT = "--rank", "alive.json"
LIBRARIES = ("torch/nn/modules/module.py", "torch/utils/_contextlib.py", "torch/_dynamo", "<frozen")


def alive_at_peak(trace: list[dict[str, Any]]) -> dict[int, dict[str, Any]]:
    """Of a device's events in their order: by address, those allocations that were not freed when their sum was largest."""
    alive: dict[int, dict[str, Any]] = {}
    now = highest = 0
    at_peak: dict[int, dict[str, Any]] = {}
    for event in trace:
        if event["action"] == "alloc":
            alive[event["addr"]] = event
            now += event["size"]
        elif event["action"] == "free_completed" and event["addr"] in alive:
            if now > highest:
                highest, at_peak = now, dict(alive)
            now -= alive.pop(event["addr"])["size"]
    return at_peak if highest >= now else alive


def place_of(event: dict[str, Any]) -> str:
    frames = [frame for frame in event["frames"] if frame["filename"].endswith(".py") and not any(part in frame["filename"] for part in LIBRARIES)]
    return " < ".join(f"{Path(frame['filename']).name}:{frame['line']}" for frame in frames[:FRAMES])


def as_rank(folder: Path) -> int:
    torch.cuda.memory._record_memory_history(max_entries=ENTRIES, stacks="python")
    code = train()
    sizes, counts = Counter[str](), Counter[str]()
    for event in alive_at_peak(torch.cuda.memory._snapshot()["device_traces"][0]).values():
        place = f"{event['size'] / 2**20:9.1f} MiB each, {place_of(event)}"
        sizes[place] += event["size"]
        counts[place] += 1
    (folder / RESULT).write_text(json.dumps([(size, counts[place], place) for place, size in sizes.most_common(SHOWN)]))
    return code


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cell", choices=sorted(cell.name for grid in GRIDS.values() for group in grid for cell in group), metavar="CELL")
    parser.add_argument("--bases", type=Path, default=BASES)
    parser.add_argument("--work", type=Path, default=Path("/tmp/regimen-alive"))
    arguments = parser.parse_args()
    shapes, data = write_shapes(arguments.work / "shapes"), write_samples(arguments.work / "data")
    (cell,) = (cell for grid in GRIDS.values() for group in grid for cell in group if cell.name == arguments.cell)
    given = [*overrides(cell, data, arguments.bases), "training.max_steps=3", "node=auto", "node.gpus=1", f"output={arguments.work / 'runs'}"]
    judged = judge_run(compose([*given, f"name={cell.name.replace('/', '-')}"], [shapes]))
    run_dir, code, output = run_by((str(Path(__file__).resolve()), RANK), judged, environment_for((), 1), 300)
    if code:
        print(output[-2000:])
        return code
    for size, count, place in json.loads((run_dir.path / RESULT).read_text()):
        print(f"{size / 2**20:9.1f} MiB {count:5}x {place}")
    return 0


if __name__ == "__main__":
    if RANK not in sys.argv:
        raise SystemExit(main())
    sys.argv.remove(RANK)
    status = as_rank(Path(sys.argv[1]))
    sys.stdout.flush()
    os._exit(status)
