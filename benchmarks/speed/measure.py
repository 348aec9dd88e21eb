"""Tokens a second and peak memory of every cell and variant of cells.py, through the command line, one run at a time on GPU 0.

    python -m benchmarks.speed.measure --out RESULTS.jsonl --bases FOLDER                                    what RESULTS does not hold yet
    python -m benchmarks.speed.measure --out RESULTS.jsonl --bases FOLDER --only 8b-lora/kernels 1b-full     cells, or cells and variants
    python -m benchmarks.speed.measure --out RESULTS.jsonl --bases FOLDER --project CHECKOUT                 by another checkout's code
    python -m benchmarks.speed.measure --out RESULTS.jsonl --bases FOLDER --tiny                             a rehearsal on a CPU

Random weights of the published shapes are made where FOLDER lacks them. Rates count tokens that are no padding; a run's median is over its steps
after the warm-up, without the last, its mean their tokens over their time. A line is written as soon as a run has ended.
"""

import argparse
import itertools
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from shutil import which
from typing import Any

from benchmarks.running.cpus import command_line
from benchmarks.speed import cells
from benchmarks.speed.cells import CELLS, MODELS, Cell, variants_of

HERE = Path(__file__).resolve().parents[2]
PACKAGES = ("torch", "triton", "transformers", "peft", "trl", "accelerate", "bitsandbytes", "liger-kernel", "datasets")
GIB = 2**30


def main() -> int:
    arguments = parsed()
    began, facts = time.monotonic(), surroundings()
    done = finished([arguments.out, *arguments.earlier])
    for cell, variant in wanted(arguments.only):
        if f"{cell.name}/{variant}" in done:
            continue
        left = arguments.seconds - (time.monotonic() - began)
        if left < arguments.cell_seconds / 3:
            print(f"no time left for {cell.name}/{variant}", flush=True)
            break
        record = run(cell, variant, arguments, min(left, arguments.cell_seconds))
        with arguments.out.open("a") as file:
            file.write(json.dumps({**record, "surroundings": facts}) + "\n")
        print(f"{time.monotonic() - began:5.0f} s  {summary(record)}", flush=True)
    return 0


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--bases", type=Path, required=True)
    parser.add_argument("--earlier", type=Path, nargs="*", default=[], help="results whose cells are not run again")
    parser.add_argument("--only", nargs="*", default=[], help="CELL or CELL/VARIANT, in this order")
    parser.add_argument("--project", type=Path, default=HERE, help="the checkout whose code runs")
    parser.add_argument("--work", type=Path, default=Path("/tmp/regimen-speed"))
    parser.add_argument("--seconds", type=float, default=1e9, help="start no run after this time")
    parser.add_argument("--cell-seconds", type=float, default=150)
    parser.add_argument("--tiny", action="store_true")
    arguments: argparse.Namespace = parser.parse_args()
    return arguments


def wanted(only: list[str]) -> list[tuple[Cell, str]]:
    every = [(cell, variant) for cell in CELLS for variant in variants_of(cell)]
    if not only:
        return every
    return [pair for name in only for pair in every if name in (pair[0].name, f"{pair[0].name}/{pair[1]}")]


def finished(paths: list[Path]) -> set[str]:
    records = [json.loads(line) for path in paths if path.exists() for line in path.read_text().splitlines()]
    return {record["cell"] for record in records if record["exit_code"] == 0}


def run(cell: Cell, variant: str, arguments: argparse.Namespace, seconds: float) -> dict[str, Any]:
    base = arguments.bases / MODELS[cell.model]
    make_base(cell, base, arguments.tiny)
    data, output = arguments.work / "data", arguments.work / "runs"
    packed = 5 if cell.mixed else 1  # samples that fit a row
    cells.write_data(cell, data, packed * cell.rows * (cell.warm_up + cell.steps + 2))
    given = cells.overrides(cell, variant, base, data, output, arguments.tiny)
    if arguments.tiny:
        given = [each for each in given if not each.startswith("training.loss=fused")] + ["node=cpu", "data.cutoff=128"]
    began = time.monotonic()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (str(arguments.project), os.environ.get("PYTHONPATH"))))}
    try:
        ended = subprocess.run(
            [sys.executable, "-m", "launcher", "train", *given],
            cwd="/tmp",
            env=environment,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
        code, said = ended.returncode, ended.stdout + ended.stderr
    except subprocess.TimeoutExpired as ended_late:
        code, said = 124, str(ended_late)
    record = {
        "cell": f"{cell.name}/{variant}",
        "exit_code": code,
        "seconds": round(time.monotonic() - began, 1),
        "command": ["regimen", "train", *given],
    }
    folders = sorted((output / f"{cell.name}-{variant}").glob("*/run.yaml"))
    if code or not folders:
        logs = sorted(folders[-1].parent.glob("log/rank-*.txt")) if folders else []
        return {**record, "error": "\n".join([said[-800:], *(log.read_text()[-2000:] for log in logs)])}
    return {**record, **measured(folders[-1].parent, cell)}


def measured(folder: Path, cell: Cell) -> dict[str, Any]:
    entries = [json.loads(line) for line in (folder / "progress.jsonl").read_text().splitlines()]
    entries = [entry for entry in entries if "tokens_per_second" in entry]
    memory = json.loads((folder / "memory.json").read_text())
    counted = entries[cell.warm_up : -1]  # with training.kernels=fused the last one is fetched with the one before
    times = [entry["time"] for entry in entries[cell.warm_up - 1 : -1]]
    steps = [after - before for before, after in itertools.pairwise(times)]
    tokens = [entry["tokens_per_second"] * step for entry, step in zip(counted, steps, strict=False)]
    peaks = [each.get("allocated", 0) for each in memory["measured"]]
    kernels = [line for line in (folder / "log" / "rank-0.txt").read_text().splitlines() if line.startswith("kernels of")]
    return {
        "tokens_per_second": statistics.median(entry["tokens_per_second"] for entry in counted),
        "mean_tokens_per_second": round(sum(tokens) / sum(steps), 1),
        "step_seconds": round(statistics.median(steps), 4),
        "tokens_a_step": round(statistics.mean(tokens)),
        "padding": statistics.mean(entry["padding"] for entry in counted),
        "allocated_gib": round(max(peaks) / GIB, 3),
        "predicted_gib": round(memory["predicted"].get("allocated", 0) / GIB, 3),
        "phases": [each.get("phases") for each in memory["measured"]],
        "step_times": [round(step, 4) for step in steps],
        "losses": [entry["loss"] for entry in entries],
        "kernels": kernels,
    }


def make_base(cell: Cell, folder: Path, small: bool) -> None:
    if folder.exists():
        return
    subprocess.run([sys.executable, "-m", "benchmarks.speed.weights", cell.model, str(folder), *(["--tiny"] if small else [])], check=True)


def surroundings() -> dict[str, object]:
    query = ("nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader")
    gpus = subprocess.run(query, capture_output=True, text=True, check=False) if which("nvidia-smi") else None
    versions = {name: version(name) for name in PACKAGES if found(name)}
    facts = {"date": time.strftime("%Y-%m-%d"), "python": platform.python_version(), "versions": versions, "cpus": os.cpu_count()}
    return {**facts, "gpus": gpus.stdout.strip().splitlines() if gpus else [], "command": command_line()}


def found(name: str) -> bool:
    from importlib.metadata import PackageNotFoundError

    try:
        return bool(version(name))
    except PackageNotFoundError:
        return False


def summary(record: dict[str, Any]) -> str:
    if record["exit_code"]:
        return f"{record['cell']:<32} exit {record['exit_code']} {str(record.get('error', ''))[-1500:]}"
    rate = f"{record['tokens_per_second']:9.0f} tok/s (mean {record['mean_tokens_per_second']:.0f}), step {1e3 * record['step_seconds']:.1f} ms"
    memory = f"{record['allocated_gib']:.2f} GiB, predicted {record['predicted_gib']:.2f}"
    return f"{record['cell']:<32} {rate}, padding {record['padding']:.3f}, {memory}, {record['seconds']:.0f} s in all"


if __name__ == "__main__":
    raise SystemExit(main())
