"""Which blocks torch's allocator keeps in the stages: cells of benchmarks/stages/stage_cells.py with the allocator's own record of what it did.

    python -m benchmarks.memory.stage_blocks measure --data DATA --bases FOLDER --folder OUT --only ppo/lora grpo/lora      one H200
    python -m benchmarks.memory.stage_blocks measure --data DATA --folder OUT --only ppo/lora --tiny                        a rehearsal on a CPU
    python -m benchmarks.memory.stage_blocks show OUT/FILE.json.gz ...                                     blocks of the last step, in their order

DATA is that of stage_cells.py. What is written in OUT: stage_blocks_rank.py.
"""

import argparse
import gzip
import json
import os
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.running.cell_runs import folder_name, newest_run, run_by, surroundings
from benchmarks.running.processes import environment_for
from benchmarks.stages.stage_cells import JUDGE, Cell, Place, cells_for, overrides, train_judge
from launcher.composition.compose import compose
from launcher.gate.judge import judge_run

RANK = Path(__file__).with_name("stage_blocks_rank.py")
SHOWN = 32 * 2**20  # bytes


def measure(arguments: argparse.Namespace) -> None:
    began, facts = time.monotonic(), surroundings()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    place = Place(arguments.data, arguments.work, arguments.bases, arguments.tiny, not arguments.tiny, arguments.steps)
    cells = [cell for cell in cells_for(1) if f"{cell.stage}/{cell.regime}" in arguments.only]
    if any(cell.stage == "ppo" for cell in cells):
        train_judge(place, dict(os.environ))
    for cell in cells:
        judge = [f"stage.reward_model={newest_run(place.output, JUDGE)}"] if cell.stage == "ppo" else []
        code, said = recorded(cell, [*overrides(cell, place), *judge, *arguments.more], arguments, facts)
        print(f"{time.monotonic() - began:6.0f} s  {cell.name} ended with {code}{said[-600:] if code else ''}", flush=True)


def recorded(cell: Cell, given: Sequence[str], arguments: argparse.Namespace, facts: dict[str, object]) -> tuple[int, str]:
    out = (arguments.folder / f"{folder_name(cell.name)}.json.gz").resolve()
    judged = judge_run(compose(given))
    run_dir, code, said = run_by([str(RANK), str(out)], judged, environment_for([], 2), arguments.cell_seconds)
    if code == 0:
        memory = json.loads((run_dir.path / "memory.json").read_text())
        record = {"cell": cell.name, "overrides": list(given), **memory, "surroundings": facts}
        with (arguments.folder / "cells.jsonl").open("a") as file:
            file.write(json.dumps(record) + "\n")
    logs = [run_dir.rank_log(0).read_text()[-500:]] if code and run_dir.rank_log(0).exists() else []
    return code, "\n".join([said, *logs])


def show(path: Path) -> None:
    """Of the last step: each mark, and the large blocks between it and the one before."""
    with gzip.open(path, "rt") as file:
        found: dict[str, Any] = json.load(file)
    last = [number for number, mark in enumerate(found["marks"]) if mark[1] == "optimizer step"][-2]
    marks = found["marks"][last:]
    print(path.name, found["columns"])
    lives: dict[int, str] = {}
    for before, after in pairwise(marks):
        for when, action, address, size, _, where in found["events"]:
            if before[0] < when <= after[0] and size >= SHOWN and action in ("alloc", "free_completed", "segment_map", "segment_unmap"):
                lives[address] = where or lives.get(address, "")
                print(f"    {action:<15} {size / 2**20:10.1f} MiB  {lives[address]}")
        print(f"{after[1]:<16}", *(f"{size / 2**30:8.2f}" for size in after[2:]))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("act", choices=("measure", "show"))
    parser.add_argument("files", type=Path, nargs="*")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--bases", type=Path)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--only", nargs="*", default=[], help="stage/regime")
    parser.add_argument("--more", nargs="*", default=[], help="overrides, the last word")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--cell-seconds", type=float, default=200)
    parser.add_argument("--work", type=Path, default=Path("/tmp/regimen-blocks"))
    parser.add_argument("--tiny", action="store_true")
    arguments = parser.parse_intermixed_args()
    if arguments.act == "measure":
        measure(arguments)
    for path in arguments.files:
        show(path)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
