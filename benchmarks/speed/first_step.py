"""From the command to the end of the first step, beside what no start can do without: the bare import of TRL, reading the weights, and one step.

    python -m benchmarks.speed.first_step --bases FOLDER --out FIRST_STEP.jsonl                      8B QLoRA (cells.py), files warm
    python -m benchmarks.speed.first_step --bases FOLDER --out FIRST_STEP.jsonl --tiny               a rehearsal on a CPU

Everything is a process of its own. One start is made before the ones that count: it warms files, bytecode and the cache of compiled kernels. The
weights are read once by plain reads into one buffer, and again with the time taken: that is the rate of warm files. A line is written for each start.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.speed.cells import CELLS, MODELS, Cell, overrides, write_data
from benchmarks.speed.measure import make_base, surroundings

YARDSTICK = (sys.executable, "-c", "import trl.trainer.sft_trainer")
STEPS = 8
GOAL = 1.5
BUFFER = 2**26  # bytes


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cell", default="8b-qlora")
    parser.add_argument("--bases", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("/tmp/regimen-speed"))
    parser.add_argument("--runs", type=int, default=2)
    parser.add_argument("--tiny", action="store_true")
    arguments = parser.parse_args()
    cell = next(each for each in CELLS if each.name == arguments.cell)
    base = arguments.bases / MODELS[cell.model]
    make_base(cell, base, arguments.tiny)
    write_data(cell, arguments.work / "data", cell.rows * (STEPS + 2))
    given = [*overrides(cell, "default", base, arguments.work / "data", arguments.work / "starts", arguments.tiny), f"training.max_steps={STEPS}"]
    given = [*given, "node=cpu", "data.cutoff=128"] if arguments.tiny else given
    started(cell, given, arguments.work)
    read(base)
    for _ in range(arguments.runs):
        record = {"cell": cell.name, "import_seconds": imported(), "read_seconds": read(base), **started(cell, given, arguments.work)}
        record["ratio"] = round(record["start_seconds"] / least(record), 3)
        with arguments.out.open("a", encoding="utf-8") as file:
            file.write(json.dumps({**record, "surroundings": surroundings()}) + "\n")
        print(sentence(record), flush=True)
    return 0


def least(record: dict[str, Any]) -> float:
    """Seconds that the start is measured by."""
    return float(record["import_seconds"] + record["read_seconds"] + record["step_seconds"])


def sentence(record: dict[str, Any]) -> str:
    parts = ", ".join(f"{name} {seconds:.2f}" for name, seconds in record["phases"].items())
    yardstick = f"import {record['import_seconds']:.2f} + reading {record['read_seconds']:.2f} + a step {record['step_seconds']:.2f}"
    return f"{record['cell']}: {record['start_seconds']:.2f} s ({parts}); {yardstick} = {least(record):.2f} s; ratio {record['ratio']}, goal {GOAL}"


def imported() -> float:
    began = time.monotonic()
    subprocess.run(YARDSTICK, check=True, cwd="/", capture_output=True)
    return round(time.monotonic() - began, 3)


def read(base: Path) -> float:
    """Seconds for all weights."""
    buffer, began = bytearray(BUFFER), time.monotonic()
    for path in sorted(base.glob("*.safetensors")):
        with path.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass
    return round(time.monotonic() - began, 3)


def started(cell: Cell, given: list[str], work: Path) -> dict[str, Any]:
    """One run, by its own records: until its first step had ended, and what each phase of that took."""
    here = str(Path(__file__).resolve().parents[2])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (here, os.environ.get("PYTHONPATH"))))}
    began = time.time()
    done = subprocess.run(
        [sys.executable, "-m", "launcher", "train", *given], cwd="/tmp", env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"the run ended with {done.returncode}:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    folder = sorted((work / "starts" / f"{cell.name}-default").glob("*/run.yaml"))[-1].parent
    return measured(folder, began)


def measured(folder: Path, began: float) -> dict[str, Any]:
    """`began`: seconds since the epoch at which the command was given."""
    said = [("the command until its ranks are started", began), *moments(folder)]
    ended = next(number for number, (doing, _) in enumerate(said) if doing == "training")
    times = [entry["time"] for entry in lines(folder / "progress.jsonl") if "loss" in entry]
    steps = [later - earlier for earlier, later in pairwise(times[1:-1])]  # not the first, and the last is written with the one before
    return {
        "start_seconds": round(said[ended][1] - began, 3),
        "phases": {doing: round(until - since, 3) for (doing, since), (_, until) in pairwise(said[: ended + 1])},
        "step_seconds": round(statistics.median(steps), 3),
    }


def moments(folder: Path) -> list[tuple[str, float]]:
    starts = [("starting the ranks", entry["time"]) for entry in lines(folder / "journal.jsonl") if entry["event"] == "start"]
    return [*starts[-1:], *((entry["doing"], entry["time"]) for entry in lines(folder / "layout" / "doing.jsonl"))]


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


if __name__ == "__main__":
    raise SystemExit(main())
