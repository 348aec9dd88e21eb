"""Predicted against measured time of a step, over cells drawn at random: the prediction is written first.

    python -m benchmarks.speed.times predict --out PREDICTED.jsonl                                     before anything is measured
    python -m benchmarks.speed.times predict --grid small --out PREDICTED.jsonl                        adapters on few tokens, and pairs of answers
    python -m benchmarks.speed.times predict --grid again --out PREDICTED.jsonl                        as the first, by the formulas of 2026-12-01
    python -m benchmarks.speed.times measure --predicted PREDICTED.jsonl --out TIMES.jsonl --bases FOLDER --seconds 450      one H200
    python -m benchmarks.speed.times measure --predicted PREDICTED.jsonl --out TIMES.jsonl --bases FOLDER --tiny             a rehearsal on a CPU
    CUDA_VISIBLE_DEVICES=1 python -m benchmarks.speed.times measure --part 2/2 --work FOLDER2 ...      every second cell, on another GPU
    python -m benchmarks.speed.times measure --only 10/ 16/ --ways "as it is" "liger's norms" ...       these cells, in each way of ways.py in turn
    python -m benchmarks.speed.times report --out TIMES.jsonl                                          the table, and how far off

Runs train one at a time, in a process of their own each (alone.py); nothing else uses the GPU meanwhile, nor its share of the processors. Cells that
TIMES holds are not measured again. Parts append to one file; each needs a folder of its own to work in, and bases that are there already. Random
weights of each shape are made once, on the GPU where there is one, under FOLDER. Every sample is as long as data.cutoff.
"""

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.memory.cells import tiny
from benchmarks.running.cell_runs import surroundings
from benchmarks.speed import alone
from benchmarks.speed.ways import AS_IT_IS, WAYS
from conf.schema import Composed
from launcher.composition.compose import compose
from launcher.facts.host_speed import python_turn
from launcher.gate.judge import Judged, judge_run
from launcher.launch.backends import command
from launcher.launch.execute import start_fresh, write_plan
from launcher.launch.plan import plan_for
from launcher.timing.step import step_time

MODELS = ("qwen2.5_0.5b", "llama3.2_1b", "qwen2.5_1.5b", "llama3.2_3b", "qwen3_4b_instruct", "llama3.1_8b")
REGIMES: dict[str, tuple[str, ...]] = {
    "lora": ("regime=lora",),
    "qlora4": ("regime=qlora", "regime.bits=4"),
    "full_bf16": ("regime=full", "training.precision=bf16"),
    "full_amp": ("regime=full", "training.precision=bf16_amp"),
}
LENGTHS, MICRO_BATCHES, ACCUMULATIONS = (512, 1024, 2048, 4096), (1, 2, 4, 8, 16), (1, 1, 2)
LONGEST, ROOM = 2.5, 125 * 2**30  # predicted seconds of a step, and bytes that it needs: a cell beyond them is drawn anew
DATA = {"sft": "answers.json", "dpo": "pairs.json", "pt": "text.jsonl"}
CHARACTERS = 4300  # of an answer, each a token: more than any cutoff here
CELL_SECONDS = 90


@dataclass(frozen=True)
class Grid:
    """What `count` cells are drawn from."""

    seed: int
    count: int
    models: tuple[str, ...]
    regimes: tuple[str, ...]
    stages: tuple[str, ...]
    tokens: tuple[int, int]  # samples of a micro-batch times their length, at least and at most


GRIDS = {
    "drawn": Grid(20261130, 38, MODELS, tuple(REGIMES), ("sft", "sft", "sft", "sft", "sft", "pt", "dpo"), (1024, 16384)),
    "again": Grid(20261206, 36, MODELS, tuple(REGIMES), ("sft", "sft", "sft", "sft", "sft", "pt", "dpo"), (1024, 16384)),
    "hosts": Grid(20261207, 36, MODELS, tuple(REGIMES), ("sft", "sft", "sft", "sft", "sft", "pt", "dpo"), (1024, 16384)),
    "small": Grid(20261202, 18, MODELS[:-1], ("lora", "qlora4"), ("sft", "sft", "sft", "pt", "dpo"), (512, 4096)),
}


@dataclass(frozen=True)
class Cell:
    name: str
    overrides: tuple[str, ...]


def draw(source: random.Random, number: int, grid: Grid) -> Cell:
    model, regime, stage = source.choice(grid.models), source.choice(grid.regimes), source.choice(grid.stages)
    length, size, accumulation = source.choice(LENGTHS), source.choice(MICRO_BATCHES), source.choice(ACCUMULATIONS)
    again, kernels = source.choice((False, False, True)), source.choice(("plain", "fused"))
    kernels = "plain" if stage == "dpo" else kernels  # the fused ones are not chosen where answers are compared
    parts = (model, regime, stage, f"{size}x{length}x{accumulation}", kernels, *(["checkpointing"] if again else []))
    return Cell(
        f"{number:02d}/" + "/".join(parts),
        (
            *(f"model={model}", f"stage={stage}", *REGIMES[regime], f"data.cutoff={length}", f"training.micro_batch={size}"),
            *(f"training.accumulation={accumulation}", f"training.gradient_checkpointing={str(again).lower()}", f"training.kernels={kernels}"),
            f"training.loss={'fused' if kernels == 'fused' else 'plain'}",
        ),
    )


def drawn(grid: Grid, work: Path) -> list[tuple[Cell, Judged]]:
    """Cells that fit, with what the launcher says of each."""
    source, found = random.Random(grid.seed), list[tuple[Cell, Judged]]()
    while len(found) < grid.count:
        cell = draw(source, len(found), grid)
        keys = dict(each.split("=") for each in cell.overrides)
        if not grid.tokens[0] <= int(keys["training.micro_batch"]) * int(keys["data.cutoff"]) <= grid.tokens[1]:
            continue
        judged = judge_run(composed(cell, work, Path("/nowhere"), ["node=h200_141", "node.host_memory=128000000000"]))
        if judged.estimate.required < ROOM and step_time(judged.run, judged.facts).seconds < LONGEST:
            found.append((cell, judged))
    return found


def composed(cell: Cell, work: Path, folder: Path, more: Sequence[str]) -> Composed:
    keys = dict(each.split("=") for each in cell.overrides)
    steps = alone.WARM_UP + alone.STEPS + 1
    samples = [] if keys["stage"] == "pt" else [f"data.max_samples={steps * int(keys['training.micro_batch']) * int(keys['training.accumulation'])}"]
    return compose(
        [
            *(*cell.overrides, "model.init=pretrained", f"model.path={folder / keys['model']}", "model.tokenizer=bytes"),
            *("data=files", f"data.folder={work / 'data'}", f"data.sets=[{DATA[keys['stage']]}]", "data.template=chatml", *samples),
            *(f"data.cache={work / 'cache'}", "data.validation_share=0", f"training.max_steps={steps}", "training.fit=off"),
            *("checkpoint.interval=0", "evaluation.interval=0", "optim.scheduler=constant", "optim.warmup=0", "cluster.ranks_per_node=1"),
            *("gate.mode=off", f"output={work / 'runs'}", f"name={cell.name.replace('/', '-')}", *more),
        ]
    )


def write_data(folder: Path) -> None:
    source, rows = random.Random(0), (alone.WARM_UP + alone.STEPS + 1) * MICRO_BATCHES[-1] * ACCUMULATIONS[-1]
    folder.mkdir(parents=True, exist_ok=True)

    def letters(count: int) -> str:
        return "".join(source.choices("abcdefgh ", k=count))

    answers = [{"instruction": "Go on.", "input": "", "output": letters(CHARACTERS)} for _ in range(rows)]
    pairs = [{"instruction": "Go on.", "chosen": letters(CHARACTERS), "rejected": letters(CHARACTERS)} for _ in range(rows)]
    (folder / DATA["sft"]).write_text(json.dumps(answers))
    (folder / DATA["dpo"]).write_text(json.dumps(pairs))
    (folder / DATA["pt"]).write_text(json.dumps({"text": letters(rows * LENGTHS[-1])}) + "\n")


def predict(arguments: argparse.Namespace) -> None:
    write_data(arguments.work / "data")
    lines = [
        {"cell": cell.name, "overrides": list(cell.overrides), "predicted": step_time(judged.run, judged.facts).as_dict()}
        for cell, judged in drawn(GRIDS[arguments.grid], arguments.work)
    ]
    arguments.out.write_text("".join(json.dumps(line) + "\n" for line in lines))


def measure(arguments: argparse.Namespace) -> None:
    began, facts = time.monotonic(), surroundings()
    write_data(arguments.work / "data")
    predicted = read(arguments.predicted)
    there = [line for line in read(arguments.out) if line["exit_code"] == 0] if arguments.out.exists() else []
    done = {(line["cell"], line.get("way", AS_IT_IS)) for line in there}
    named = [line for line in part_of(predicted, arguments.part) if line["cell"].startswith(tuple(arguments.only))]
    models = sorted({line["cell"].split("/")[1] for line in named})
    left = [{**line, "way": way} for line in named for way in arguments.ways if (line["cell"], way) not in done]
    processes = [alone.waiting() for _ in left[: arguments.ready]]  # they load their libraries while the bases are made
    if not all((arguments.bases / model).is_dir() for model in models):
        make_bases(arguments, models)
    while arguments.after is not None and not arguments.after.exists():
        time.sleep(0.5)
    for start in range(0, len(left), arguments.ready):
        batch = left[start : start + arguments.ready]
        if start:
            if time.monotonic() - began > arguments.seconds:
                return
            processes = [alone.waiting() for _ in batch]
        for process in processes:
            alone.until_ready(process)
        for line, process in zip(batch, processes, strict=True):
            if time.monotonic() - began > arguments.seconds:
                process.communicate()  # its input ends, and so does it
                continue
            found = one(line, arguments, process)
            with arguments.out.open("a") as file:
                file.write(json.dumps({**line, **found, "surroundings": facts}) + "\n")
            print(f"{time.monotonic() - began:5.0f} s  {summary({**line, **found})}", flush=True)


def part_of(lines: Sequence[dict[str, Any]], part: str) -> Sequence[dict[str, Any]]:
    """`part`: its number and how many there are, as 1/2. Every line is in one part, whichever lines are done."""
    number, count = map(int, part.split("/"))
    return lines[number - 1 :: count]


def make_bases(arguments: argparse.Namespace, models: Sequence[str]) -> None:
    small = ["--tiny"] if arguments.tiny else []
    command = [sys.executable, "-m", "benchmarks.running.bases", "--out", str(arguments.bases), "--only", *models, *small]
    subprocess.run([*command, "--work", str(arguments.work / "bases")], check=True)


def one(line: dict[str, Any], arguments: argparse.Namespace, process: "subprocess.Popen[str]") -> dict[str, Any]:
    """The seconds of its steps, or why there are none."""
    cell, result = Cell(line["cell"], tuple(line["overrides"])), arguments.work / "result.json"
    keys, turn = dict(each.split("=") for each in cell.overrides), python_turn()
    node = ["node=auto", "node.gpus=1", f"node.python_turn={turn:.1f}"] if not arguments.tiny else ["node=cpu", *small(keys["model"])]
    judged = judge_run(composed(cell, arguments.work, arguments.bases, [*node, *WAYS[line["way"]][1]]))
    run_dir = start_fresh(judged)
    write_plan(plan_for(judged, run_dir), dict(os.environ))
    result.unlink(missing_ok=True)
    began = time.monotonic()
    environment = command(judged.run, run_dir).environment(dict(os.environ))
    code = alone.trained(process, run_dir.path, result, environment, CELL_SECONDS, way=line["way"])
    here = {"python_turn": turn, "predicted_here": step_time(judged.run, judged.facts).as_dict()}  # as `plan` says it right before the run
    took = {"exit_code": code, "seconds": round(time.monotonic() - began, 1), **here}
    log = run_dir.rank_log(0).read_text() if run_dir.rank_log(0).exists() else ""
    shutil.rmtree(run_dir.path, ignore_errors=True)
    if code or not result.exists():
        return {**took, "exit_code": code or 1, "error": log[-2500:]}
    found = json.loads(result.read_text())
    return {**took, **found, "step": statistics.median(found["step_seconds"])}


def small(model: str) -> list[str]:
    return [
        *tiny(compose([f"model={model}", "data=demo"]).model.architecture or {}),
        *("data.cutoff=64", "training.micro_batch=2", "training.loss=plain", "data.max_samples=null"),
    ]


def error_of(line: dict[str, Any]) -> float:
    """Predicted over measured seconds, less one."""
    return float(line["predicted"]["step"] / line["step"] - 1)


def summary(line: dict[str, Any]) -> str:
    if "step" not in line:
        return f"{line['cell']:<62} failed with {line['exit_code']}: {str(line.get('error'))[-600:]}"
    waits = line["predicted"]["terms"].get("waiting for the host", 0) / line["predicted"]["step"]
    return f"{line['cell']:<62} {line['step']:8.4f} s, predicted {line['predicted']['step']:8.4f}  {error_of(line):+7.1%}  host {waits:4.0%}"


def report(lines: Sequence[dict[str, Any]]) -> str:
    measured = [line for line in lines if "step" in line]
    errors = [abs(error_of(line)) for line in measured]
    inside = sum(line["predicted"]["low"] <= line["step"] <= line["predicted"]["high"] for line in measured)
    worst = f"median {statistics.median(errors):.1%}, worst {max(errors):.1%}; {inside} of {len(errors)} inside of the stated range"
    return "\n".join([*(summary(line) for line in lines), f"{len(errors)} cells: {worst}"])


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["predict", "measure", "report"])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--predicted", type=Path)
    parser.add_argument("--grid", choices=list(GRIDS), default="drawn", help="of `predict`")
    parser.add_argument("--bases", type=Path, default=Path("/tmp/regimen-times/bases"))
    parser.add_argument("--work", type=Path, default=Path("/tmp/regimen-times"))
    parser.add_argument("--seconds", type=float, default=1e9, help="seconds after which no cell is started")
    parser.add_argument("--ready", type=int, default=8, help="processes that load their libraries together before the first of them trains")
    parser.add_argument("--after", type=Path, help="a file: until it is there, something else is at work and nothing is timed")
    parser.add_argument("--part", default="1/1", help="the share of the cells that this process measures, as 2/2")
    parser.add_argument("--only", nargs="*", default=[""], help="beginnings of cell names")
    parser.add_argument("--ways", nargs="*", default=[AS_IT_IS], choices=list(WAYS))
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
