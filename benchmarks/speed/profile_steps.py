"""What steps of the cells of times.py spend their time on: kernels and gaps of the GPU, operations and Python calls of the host.

    python -m benchmarks.speed.profile_steps --out PROFILES.jsonl --bases FOLDER --only 10/ 16/ 27/          one H200, alone
    python -m benchmarks.speed.profile_steps --out PROFILES.jsonl --bases FOLDER --only 10/ --tiny           a rehearsal on a CPU
    python -m benchmarks.speed.profile_steps --out PROFILES.jsonl --page                                     the table

A line a cell, with what the formulas of the time count of the same step, and with what the host needs for one kernel of torch when nothing else
happens. How each step is looked at: profiled.py.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

from benchmarks.running.cell_runs import surroundings
from benchmarks.speed import alone
from benchmarks.speed.host_speed import host_speed
from benchmarks.speed.times import Cell, composed, one, read, write_data
from benchmarks.speed.ways import AS_IT_IS
from launcher.gate.judge import judge_run
from launcher.timing.launches import launches
from launcher.timing.work import work_of


def counted(line: dict[str, Any], work: Path) -> float:
    """Kernels of a step, by the formula."""
    judged = judge_run(
        composed(Cell(line["cell"], tuple(line["overrides"])), work, Path("/nowhere"), ["node=h200_141", "node.host_memory=128000000000"])
    )
    return launches(work_of(judged.run, judged.facts)) * judged.run.training.accumulation


def measure(arguments: argparse.Namespace) -> None:
    began, facts = time.monotonic(), surroundings()
    write_data(arguments.work / "data")
    lines = [line for line in read(arguments.predicted) if line["cell"].startswith(tuple(arguments.only))]
    lines.sort(key=lambda line: next(number for number, name in enumerate(arguments.only) if line["cell"].startswith(name)))
    processes = [alone.waiting("benchmarks.speed.profiled") for _ in lines[: arguments.ready]]
    for process in processes:
        alone.until_ready(process)
    speed = host_speed()
    for line in lines:
        if not processes:
            processes = [alone.waiting("benchmarks.speed.profiled")]
            alone.until_ready(processes[0])
        process = processes.pop(0)
        if time.monotonic() - began > arguments.seconds:
            process.communicate()  # its input ends, and so does it
            continue
        found = one({**line, "way": AS_IT_IS}, arguments, process)
        record = {**line, **found, "counted_kernels": counted(line, arguments.work), "host_speed": speed, "surroundings": facts}
        with arguments.out.open("a") as file:
            file.write(json.dumps(record) + "\n")
        print(f"{time.monotonic() - began:5.0f} s  {row(record) if 'gpu' in record else record}", flush=True)


def row(record: dict[str, Any]) -> str:
    gpu, host = record["gpu"], record["host_seconds"]
    parts = " | ".join(f"{1e3 * host.get(name, 0.0):.1f}" for name in ("compute_loss", "backward", "_clip_grad_norm"))
    times = f"{1e3 * record['step']:.0f} | {1e3 * gpu['busy']:.0f} | {gpu['kernels'] + gpu['copies']:.0f} | {record['counted_kernels']:.0f}"
    return f"| {record['cell'][3:]} | {times} | {parts} |"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--predicted", type=Path, default=Path("benchmarks/results/speed/h200_times_predicted.jsonl"))
    parser.add_argument("--bases", type=Path, default=Path("/tmp/regimen-times/bases"))
    parser.add_argument("--work", type=Path, default=Path("/tmp/regimen-profiles"))
    parser.add_argument("--only", nargs="*", default=[""], help="beginnings of cell names, in the order in which they run")
    parser.add_argument("--seconds", type=float, default=1e9, help="seconds after which no cell is started")
    parser.add_argument("--ready", type=int, default=8, help="processes that load their libraries together before the first of them trains")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--page", action="store_true")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    if arguments.page:
        print("\n".join(row(record) for record in read(arguments.out) if "gpu" in record))
    else:
        measure(arguments)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
