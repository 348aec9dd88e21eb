"""What each attempt to spare the host is worth in the step of a small model: 1b-lora-mixed as it is, and with one thing done otherwise.

    python -m benchmarks.speed.spared --out SPARED.jsonl --bases FOLDER --rounds 2            one H200
    python -m benchmarks.speed.spared --report SPARED.jsonl                                   medians of all rounds
    python -m benchmarks.speed.spared --out SPARED.jsonl --bases FOLDER --rounds 1 --tiny     a rehearsal on a CPU

A run is a rank without launcher, in a process that has loaded its libraries and waited. One trains at a time, each way in turn, and again in the next
round: the speed of a host changes within minutes. Rates are those of measure.py. Lines that are there are not measured again.
"""

import argparse
import json
import os
import shutil
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.speed import alone
from benchmarks.speed.cells import CELLS, MODELS, overrides, write_data
from benchmarks.speed.measure import make_base, measured, surroundings
from benchmarks.speed.ways import WAYS
from launcher.composition.compose import compose
from launcher.gate.judge import judge_run
from launcher.launch.backends import command
from launcher.launch.execute import start_fresh, write_plan
from launcher.launch.plan import plan_for

CELL = next(cell for cell in CELLS if cell.name == "1b-lora-mixed")


def rank() -> int:
    """Waits for its run, and is its only rank."""
    alone.load_libraries()
    print(alone.READY, flush=True)
    said = sys.stdin.readline()
    if not said:
        return 0
    order = json.loads(said)
    os.environ.update(order["environment"])
    WAYS[order["way"]][0]()
    from trainers.__main__ import main as train

    sys.argv = ["trainers", order["folder"]]
    return train()


def measure(way: str, arguments: argparse.Namespace, process: Any) -> dict[str, Any]:
    base, data = arguments.bases / MODELS[CELL.model], arguments.work / "data"
    given = [*overrides(CELL, "default", base, data, arguments.work / "runs", arguments.tiny), *WAYS[way][1]]
    judged = judge_run(compose([*given, *(("node=cpu", "data.cutoff=64", "training.max_steps=30") if arguments.tiny else ())]))
    run_dir = start_fresh(judged)
    write_plan(plan_for(judged, run_dir), dict(os.environ))
    environment = command(judged.run, run_dir).environment(dict(os.environ))
    began = time.monotonic()
    code = alone.trained(process, run_dir.path, arguments.work / "unused", environment, arguments.cell_seconds, way=way)
    line = {"way": way, "exit_code": code, "seconds": round(time.monotonic() - began, 1)}
    log = run_dir.rank_log(0).read_text() if run_dir.rank_log(0).exists() else ""
    found = {"error": log[-2000:]} if code else measured(run_dir.path, CELL)
    shutil.rmtree(run_dir.path, ignore_errors=True)
    return {**line, **found}


def report(lines: Sequence[dict[str, Any]]) -> str:
    text = ["| way | tokens/s, each round | median of the rounds | mean rates | step, ms |", "|---|---|---|---|---|"]
    for way in WAYS:
        found = [line for line in lines if line["way"] == way and not line["exit_code"]]
        if found:
            rates, means = ([line[key] for line in found] for key in ("tokens_per_second", "mean_tokens_per_second"))
            shown = ", ".join(f"{rate:,.0f}" for rate in rates)
            step = 1e3 * statistics.median(line["step_seconds"] for line in found)
            text.append(f"| {way} | {shown} | {statistics.median(rates):,.0f} | {', '.join(f'{rate:,.0f}' for rate in means)} | {step:.1f} |")
    return "\n".join(text)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--report", type=Path)
    parser.add_argument("--bases", type=Path)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--only", nargs="*", default=list(WAYS), choices=list(WAYS))
    parser.add_argument("--work", type=Path, default=Path("/tmp/regimen-spared"))
    parser.add_argument("--seconds", type=float, default=1e9, help="start no run after this time")
    parser.add_argument("--cell-seconds", type=float, default=60)
    parser.add_argument("--tiny", action="store_true")
    arguments = parser.parse_args()
    if arguments.report:
        print(report([json.loads(line) for line in arguments.report.read_text().splitlines()]))
        return 0
    began, facts = time.monotonic(), surroundings()
    there = [json.loads(line) for line in arguments.out.read_text().splitlines()] if arguments.out.exists() else []
    done = {(line["way"], line["round"]) for line in there if not line["exit_code"]}
    make_base(CELL, arguments.bases / MODELS[CELL.model], arguments.tiny)
    write_data(CELL, arguments.work / "data", 5 * CELL.rows * (CELL.warm_up + CELL.steps + 2))  # as measure.py writes them
    left = [(way, number) for number in range(arguments.rounds) for way in arguments.only if (way, number) not in done]
    processes = [alone.waiting("benchmarks.speed.spared_rank") for _ in left]
    for process in processes:
        alone.until_ready(process)
    for (way, number), process in zip(left, processes, strict=True):
        if time.monotonic() - began > arguments.seconds:
            process.communicate()  # its input ends, and so does it
            continue
        line = {"round": number, **measure(way, arguments, process), "surroundings": facts}
        with arguments.out.open("a") as file:
            file.write(json.dumps(line) + "\n")
        print(f"{time.monotonic() - began:5.0f} s  {way:<28} {line.get('tokens_per_second') or line.get('error')}", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
