"""Runs the cells of a benchmark through `regimen train`, several at a time, one JSON line a cell: what sft_cells.py and stage_cells.py share."""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from shutil import which
from typing import Any

from benchmarks.running.cpus import command_line
from benchmarks.running.processes import environment_for, in_place_of_trainers, run_limited
from conf.run_dir import RunDir
from launcher.gate.judge import Judged
from launcher.launch.backends import command
from launcher.launch.execute import start_fresh, write_plan
from launcher.launch.plan import plan_for

LEARNED_SHARE = 0.9
TINY = [
    "model.architecture.hidden_size=64",
    "model.architecture.intermediate_size=128",
    "model.architecture.num_hidden_layers=2",
    "model.architecture.num_attention_heads=4",
    "model.architecture.num_key_value_heads=2",
    "model.architecture.vocab_size=512",
    "data.cutoff=128",
    "training.micro_batch=2",
]


def run_cell(cell: Any, given: list[str], output: Path, devices: Sequence[str], arguments: argparse.Namespace) -> dict[str, object]:
    """`cell` is a dataclass with a name; `given` are its overrides."""
    command = [sys.executable, "-m", "launcher", "train", *given]
    began = time.monotonic()
    code, said = run_limited(command, environment_for(devices, arguments.concurrent * max(1, arguments.gpus)), arguments.cell_seconds)
    record: dict[str, object] = {
        "cell": cell.name,
        **asdict(cell),
        "exit_code": code,
        "seconds": round(time.monotonic() - began, 1),
        "concurrent": arguments.concurrent,
        "command": ["regimen", *command[3:]],
    }
    folders = runs_of(output, cell.name)
    if code != 0:
        logs = sorted(folders[-1].glob("log/rank-*.txt")) if folders else []
        return {**record, "error": "\n".join([said[-600:], *(log.read_text()[-600:] for log in logs)])}
    return {**record, **measured(folders[-1]), "learned": learned(folders[-1])}


def run_by(script: Sequence[str], judged: Judged, environment: dict[str, str], seconds: float) -> tuple[RunDir, int, str]:
    """The folder of a run whose rank is `script` and the folder, in the place of `-m trainers`; its exit code and output."""
    run_dir = start_fresh(judged)
    write_plan(plan_for(judged, run_dir), environment)
    started = command(judged.run, run_dir)
    code, output = run_limited(in_place_of_trainers(started.argv, *script), started.environment(environment), seconds)
    return run_dir, code, output


def newest_run(output: Path, name: str) -> Path:
    return runs_of(output, name)[-1]


def runs_of(output: Path, name: str) -> list[Path]:
    return sorted(path.parent for path in (output / folder_name(name)).glob("*/run.yaml"))


def folder_name(cell: str) -> str:
    return cell.replace("/", "-")


def entries(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "progress.jsonl").read_text().splitlines()]


def losses(folder: Path) -> list[float]:
    return [entry["loss"] for entry in entries(folder) if "loss" in entry]


def learned(folder: Path) -> bool:
    curve = losses(folder)
    return statistics.mean(curve[-5:]) <= LEARNED_SHARE * statistics.mean(curve[:5])


def measured(folder: Path) -> dict[str, object]:
    memory = json.loads((folder / "memory.json").read_text())
    layout = json.loads((folder / "layout" / "rank-0.json").read_text())
    rates = [entry["tokens_per_second"] for entry in entries(folder) if "tokens_per_second" in entry][5:]
    return {
        "first_losses": losses(folder)[:5],
        "last_losses": losses(folder)[-5:],
        "tokens_per_second": statistics.median(rates) if rates else None,
        "predicted": memory["predicted"],
        "measured": memory["measured"],
        "layout": layout,
    }


def surroundings() -> dict[str, object]:
    packages = ("torch", "transformers", "peft", "trl", "accelerate", "deepspeed", "bitsandbytes", "hqq", "datasets")
    query = ("nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader")
    gpus = subprocess.run(query, capture_output=True, text=True, check=False) if which("nvidia-smi") else None
    return {
        "date": time.strftime("%Y-%m-%d"),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in packages},
        "gpus": gpus.stdout.strip().splitlines() if gpus else [],
        "cpus": os.cpu_count(),
        "command": command_line(),
    }


def finished(paths: list[Path]) -> set[object]:
    """Names of the cells that ended well in any of these files."""
    records = [json.loads(line) for path in paths if path.exists() for line in path.read_text().splitlines()]
    return {record["cell"] for record in records if record["exit_code"] == 0}


def summary(record: dict[str, object]) -> str:
    return f"{record['cell']:<40} exit {record['exit_code']} {record.get('learned', '')} {str(record.get('error', ''))[-300:]}"


def parser_of(description: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpus", type=int, default=1)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--earlier", type=Path, nargs="*", default=[], help="results whose finished cells are not run again")
    parser.add_argument("--only", nargs="*", default=[], help="prefixes of cell names")
    parser.add_argument("--concurrent", type=int, default=1, help="cells at a time; with more than 1, tokens/s do not measure speed")
    parser.add_argument("--devices", nargs="*", default=[], help="CUDA_VISIBLE_DEVICES of each slot")
    parser.add_argument("--seconds", type=float, default=1e9, help="seconds after which no cell is started")
    parser.add_argument("--cell-seconds", type=float, default=300, help="seconds after which a cell is ended")
    parser.add_argument("--output", type=Path, default=Path("/tmp/regimen-cells"))
    parser.add_argument("--tiny", action="store_true")
    return parser


def wanted(arguments: argparse.Namespace, every: Sequence[Any]) -> list[Any]:
    """Those of `every` that the arguments name and that are not done yet."""
    done = finished([arguments.out, *arguments.earlier])
    cells = [cell for cell in every if cell.name not in done]
    return [cell for cell in cells if not arguments.only or any(cell.name.startswith(prefix) for prefix in arguments.only)]


def run_cells(arguments: argparse.Namespace, cells: Sequence[Any], overrides: Callable[[Any], list[str]]) -> int:
    began, facts = time.monotonic(), surroundings()

    def work(numbered: tuple[int, Any]) -> None:
        number, cell = numbered
        given = overrides(cell)  # may wait for what the cell needs
        if time.monotonic() - began > arguments.seconds:
            return
        slots = arguments.devices
        record = run_cell(cell, given, arguments.output, slots[number % len(slots)].split(",") if slots else [], arguments)
        with arguments.out.open("a") as file:
            file.write(json.dumps({**record, "surroundings": facts}) + "\n")
        print(f"{time.monotonic() - began:6.0f} s  {summary(record)}", flush=True)

    with ThreadPoolExecutor(arguments.concurrent) as pool:
        list(pool.map(work, enumerate(cells)))
    return 0
