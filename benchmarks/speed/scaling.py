"""How the rate of a GPU changes from one GPU to two, by sharding and by its settings: the prediction is written first.

    python -m benchmarks.speed.scaling predict --out PREDICTED.jsonl                                             before anything is measured
    python -m benchmarks.speed.scaling measure --predicted PREDICTED.jsonl --out SCALING.jsonl --profiles PROFILES.jsonl --bases FOLDER --seconds 400
    python -m benchmarks.speed.scaling measure ... --tiny                                                        a rehearsal on CPUs
    python -m benchmarks.speed.scaling report --out SCALING.jsonl                                                the table

Each run is planned as `regimen train` plans it and started by the plan's own command and environment. Several load their weights together and then
wait; they train one after the other, those of one GPU two at a time on a GPU each. Cells that SCALING holds are not measured again.
"""

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.running.cell_runs import surroundings
from benchmarks.running.processes import in_place_of_trainers
from benchmarks.speed.scaling_cells import CELLS, Cell, composed, write_data
from conf.run_dir import RunDir
from launcher.errors import RegimenError
from launcher.gate.judge import Judged, judge_run
from launcher.launch.backends import command
from launcher.launch.execute import start_fresh, write_plan
from launcher.launch.plan import plan_for
from launcher.timing.step import step_time

RANK = Path(__file__).with_name("scaling_rank.py")
POLL_SECONDS = 0.05
LOADING_SECONDS, CELL_SECONDS = 150.0, 60.0


@dataclass
class Started:
    """The processes of a cell, from their start to their line."""

    cell: Cell
    line: dict[str, Any]  # its prediction
    work: Path
    run_dir: RunDir | None = None
    process: "subprocess.Popen[bytes] | None" = None
    refused: str = ""
    began: float = field(default_factory=time.monotonic)

    def path(self, what: str) -> Path:
        return self.work / f"{self.cell.name.replace('/', '-')}.{what}"

    @property
    def ready(self) -> bool:
        return all(Path(f"{self.path('ready')}-{rank}").exists() for rank in range(self.cell.gpus))

    @property
    def ended(self) -> bool:
        return self.process is None or self.process.poll() is not None

    def end(self) -> None:
        """Whatever of it still lives."""
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


def predicted_line(cell: Cell, judged: Judged) -> dict[str, Any]:
    keys = {"cell": cell.name, "gpus": cell.gpus, "overrides": list(cell.overrides), "changes": cell.changes, "tokens": cell.tokens}
    return {**keys, "predicted": step_time(judged.run, judged.facts).as_dict(), "predicted_allocated": judged.estimate.allocated}


def predict(arguments: argparse.Namespace) -> None:
    write_data(arguments.work / "data", 8)
    nodes = {gpus: ["node=h200_141", f"node.gpus={gpus}", "node.host_memory=250GB"] for gpus in (1, 2)}
    lines = [predicted_line(cell, judge_run(composed(cell, arguments.work, Path("/nowhere"), 4, nodes[cell.gpus]))) for cell in CELLS]
    arguments.out.write_text("".join(json.dumps(line) + "\n" for line in lines))


def measure(arguments: argparse.Namespace) -> None:
    began, facts = time.monotonic(), surroundings()
    write_data(arguments.work / "data", arguments.warm_up + arguments.steps + arguments.traced + 2)
    shutil.rmtree(arguments.work / "turns", ignore_errors=True)
    (arguments.work / "turns").mkdir()
    done = {line["cell"] for line in read(arguments.out) if line["exit_code"] == 0} if arguments.out.exists() else set()
    predicted = {line["cell"]: line for line in read(arguments.predicted)}
    wanted = [cell for cell in CELLS if cell.gpus <= arguments.gpus and cell.name not in done and (not arguments.only or cell.name in arguments.only)]
    make_bases(arguments, {cell.model for cell in wanted})
    for start in range(0, len(wanted), arguments.ready):
        if time.monotonic() - began > arguments.seconds - CELL_SECONDS:
            return
        loaded = load([Started(cell, predicted[cell.name], arguments.work / "turns") for cell in wanted[start : start + arguments.ready]], arguments)
        try:
            for turn in turns(loaded, arguments.gpus):
                if time.monotonic() - began < arguments.seconds:
                    take_turn(turn, arguments, facts, began)
        finally:
            for started in loaded:
                started.end()


def turns(loaded: Sequence[Started], gpus: int) -> list[list[Started]]:
    """Those of one GPU together, as many as there are GPUs, and each of two GPUs alone."""
    singles = [started for started in loaded if started.cell.gpus == 1]
    return [*(singles[at : at + gpus] for at in range(0, len(singles), gpus)), *([started] for started in loaded if started.cell.gpus > 1)]


def load(group: list[Started], arguments: argparse.Namespace) -> list[Started]:
    """Start all of them and wait until each is ready or has ended."""
    singles = 0
    for started in group:
        devices = ["0", "1"] if started.cell.gpus == 2 else [str(singles % arguments.gpus)]
        singles += started.cell.gpus == 1
        start(started, devices, arguments)
    until = time.monotonic() + LOADING_SECONDS
    while time.monotonic() < until and not all(started.ready or started.ended for started in group):
        time.sleep(POLL_SECONDS)
    return group


def start(started: Started, devices: list[str], arguments: argparse.Namespace) -> None:
    cell = started.cell
    steps = arguments.warm_up + arguments.steps + arguments.traced
    node = ["node=cpu"] if arguments.tiny else ["node=auto", f"node.gpus={cell.gpus}"]
    order = {"ready": str(started.path("ready")), "go": str(started.path("go")), "result": str(started.path("result")), "changes": cell.changes}
    try:
        judged = judge_run(composed(cell, arguments.work, arguments.bases, steps, node, few_rows(arguments), small=arguments.tiny))
    except RegimenError as error:
        started.refused = str(error)
        return
    started.run_dir = start_fresh(judged)
    environment = {**os.environ, **({} if arguments.tiny else {"CUDA_VISIBLE_DEVICES": ",".join(devices)}), **cell.changes.get("environment", {})}
    write_plan(plan_for(judged, started.run_dir), environment)
    path = started.path("order")
    path.write_text(json.dumps({**order, "warm_up": arguments.warm_up, "steps": arguments.steps, "traced": arguments.traced}))
    planned = command(judged.run, started.run_dir)
    argv = in_place_of_trainers(planned.argv, str(RANK), str(path))
    with started.path("output").open("wb") as output:
        started.process = subprocess.Popen(
            argv, env=planned.environment(environment), stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )


def few_rows(arguments: argparse.Namespace) -> tuple[str, ...]:
    return (f"training.micro_batch={arguments.rows}",) if arguments.rows else ()


def take_turn(turn: Sequence[Started], arguments: argparse.Namespace, facts: dict[str, object], began: float) -> None:
    for started in turn:
        started.began = time.monotonic()
        started.path("go").touch()
    until = time.monotonic() + CELL_SECONDS
    while time.monotonic() < until and not all(started.ended for started in turn):
        time.sleep(POLL_SECONDS)
    for started in turn:
        started.end()
        line = {**started.line, **found_by(started), "together": len(turn), "surroundings": facts}
        append(arguments.out, line)
        if started.path("result-profile").exists():
            profile = {"cell": started.cell.name, **json.loads(started.path("result-profile").read_text())}
            append(arguments.profiles, {**profile, "surroundings": facts})
        print(f"{time.monotonic() - began:5.0f} s  {summary(line)}", flush=True)
        if started.run_dir is not None:
            shutil.rmtree(started.run_dir.path, ignore_errors=True)


def append(path: Path, line: dict[str, Any]) -> None:
    with path.open("a") as file:
        file.write(json.dumps(line) + "\n")


def found_by(started: Started) -> dict[str, Any]:
    results = [Path(f"{started.path('result')}-{rank}") for rank in range(started.cell.gpus)]
    took = {"seconds": round(time.monotonic() - started.began, 1)}
    code = 3 if started.process is None else started.process.returncode
    if code or not all(result.exists() for result in results):
        return {**took, "exit_code": code or 1, "error": started.refused or said_by(started)}
    ranks = [json.loads(result.read_text()) for result in results]
    step = statistics.median(ranks[0]["step_seconds"])
    rate = {"step": step, "tokens_per_second": started.cell.tokens / step}  # of one GPU
    allocated = max(rank["allocated"] for rank in ranks)
    return {
        **took,
        "exit_code": 0,
        **rate,
        "allocated": allocated,
        **{name: ranks[0][name] for name in ("step_seconds", "phases", "losses", "engine", "environment")},
    }


def said_by(started: Started) -> str:
    assert started.run_dir is not None
    logs = [started.path("output"), *(started.run_dir.rank_log(rank) for rank in range(started.cell.gpus))]
    return "\n".join(log.read_text(errors="replace")[-1500:] for log in logs if log.exists())


def make_bases(arguments: argparse.Namespace, models: set[str]) -> None:
    missing = sorted(model for model in models if not (arguments.bases / model).is_dir())
    if missing:
        argv = [sys.executable, "-m", "benchmarks.running.bases", "--out", str(arguments.bases), "--work", str(arguments.work / "bases")]
        subprocess.run([*argv, "--only", *missing, *(["--tiny"] if arguments.tiny else [])], check=True, timeout=300)


def summary(line: dict[str, Any]) -> str:
    if line["exit_code"]:
        return f"{line['cell']:<44} failed with {line['exit_code']}: {str(line.get('error'))[-700:]}"
    predicted = line["predicted"]["step"]
    time_said = (
        f"{line['step'] * 1e3:8.1f} ms, predicted {predicted * 1e3:8.1f} {predicted / line['step'] - 1:+6.1%}"
        if predicted
        else f"{line['step']:.3f} s"
    )
    memory = f"{line['allocated'] / 2**30:.2f} GiB, predicted {line['predicted_allocated'] / 2**30:.2f}"
    return f"{line['cell']:<44} {line['tokens_per_second']:9.0f} tokens/s a GPU, {time_said}, {memory}"


def report(lines: Sequence[dict[str, Any]]) -> str:
    alone = {line["cell"]: line for line in lines if line["exit_code"] == 0}
    of = {cell.name: alone[cell.compared] for cell in CELLS if cell.compared in alone}
    shares = [f"{alone[name]['tokens_per_second'] / one['tokens_per_second']:6.1%} {name}" for name, one in of.items() if name in alone]
    return "\n".join([*(summary(line) for line in lines), *shares])


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["predict", "measure", "report"])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--predicted", type=Path)
    parser.add_argument("--profiles", type=Path, default=Path("profiles.jsonl"))
    parser.add_argument("--bases", type=Path, default=Path("/tmp/regimen-scaling/bases"))
    parser.add_argument("--work", type=Path, default=Path("/tmp/regimen-scaling"))
    parser.add_argument("--only", nargs="*", default=[], help="cells")
    parser.add_argument("--seconds", type=float, default=1e9, help="seconds after which no cell is started")
    parser.add_argument("--ready", type=int, default=12, help="cells that load their weights together")
    parser.add_argument("--gpus", type=int, choices=[1, 2], default=2, help="GPUs of this machine; with 1, cells of two are left out")
    parser.add_argument("--warm-up", type=int, default=4)
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--traced", type=int, default=2, help="more steps, which a profiler follows")
    parser.add_argument("--rows", type=int, help="samples of a micro-batch, to see whether cells run beside others: no times")
    parser.add_argument("--tiny", action="store_true")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    if arguments.what == "report":
        print(report(read(arguments.out)))
    else:
        {"predict": predict, "measure": measure}[arguments.what](arguments)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
