"""How much of the time of a sweep each GPU has a living rank: twelve LoRA and full runs of a 0.5B shape, ten on one GPU and two on both.

    PYTHONPATH=. python -m benchmarks.speed.pool --out RESULTS.jsonl                    two GPUs, some eight minutes
    PYTHONPATH=. python -m benchmarks.speed.pool --out RESULTS.jsonl --rehearse         the same way on CPUs, with a shape of two layers

The sweep is one command, `train -m`. Its points take as many steps as make 58 s by the predicted time of a step, so that each has its GPUs for 60 s
and more. A rank has its GPUs from the moment its sweep gives them to it (the line `started` of the ledger: before it, a rank loads libraries and
touches no GPU) or from its birth, whichever is later, to its last write (exit/rank-N.json). The share of a GPU is the sum of these spans over the
time from the first of them to the last on any GPU. Beside it stands what the driver says each second (nvidia-smi, utilization.gpu). One line is
appended for each point, and one for the sweep.
"""

import argparse
import json
import random
import shutil
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.running.cell_runs import surroundings
from benchmarks.running.processes import environment_for
from launcher.composition.compose import compose
from launcher.gate.judge import judge_run

TRAINING = 58.0  # seconds of steps of each run, as predicted: with its loading and saving a rank should have its GPUs for 60 s and more
SHAPE = ("model=qwen2.5_0.5b", "model.init=random", "model.path=null", "model.tokenizer=bytes", "data=files", "data.cutoff=1024")
QUIET = ("evaluation.interval=0", "evaluation.answers=0", "data.validation_share=0", "checkpoint.interval=0", "evaluation.at_end=false")
SMALL = ("model=demo", "model.architecture.hidden_size=64", "model.architecture.intermediate_size=128", "data=demo", "data.max_samples=64")
STEPS_HERE = 8  # in a rehearsal
SAMPLES, CHARACTERS = 2000, 1500
GRACE = 20.0  # seconds for the sweep to end after it was asked to


@dataclass(frozen=True)
class Kind:
    """Runs that differ in their seed alone."""

    name: str
    keys: tuple[str, ...]
    gpus: int
    points: int


KINDS = (
    Kind("full-2", ("regime=full", "sharding=zero2", "optim.lr=1e-5", "training.micro_batch=8"), 2, 1),
    Kind("lora-2", ("regime=lora", "sharding=ddp", "training.micro_batch=8"), 2, 1),
    Kind("full-1", ("regime=full", "sharding=ddp", "optim.lr=1e-5", "training.micro_batch=8"), 1, 5),
    Kind("lora-1", ("regime=lora", "sharding=ddp", "training.micro_batch=8"), 1, 5),
)


def steps_of(kind: Kind, data: Sequence[str], memory: str, rehearse: bool) -> int:
    """As many as the predicted time says for TRAINING; every row is as long as the cutoff, as the prediction assumes."""
    if rehearse:
        return STEPS_HERE
    node = ("node=h200_141", f"node.gpus={kind.gpus}", f"cluster.ranks_per_node={kind.gpus}", f"node.host_memory={memory}")
    judged = judge_run(compose([*SHAPE, *data, *QUIET, *kind.keys, *node, "training.max_steps=100"], []))
    seconds = judged.expectations.seconds
    assert seconds is not None, "the time of a step on this card is predicted"
    return max(20, round(100 * TRAINING / seconds))


def written_data(folder: Path) -> tuple[str, str]:
    """Samples longer than the cutoff; the keys that name them."""
    folder.mkdir(parents=True, exist_ok=True)
    chance = random.Random(0)
    with (folder / "long.jsonl").open("w", encoding="utf-8") as file:
        for _ in range(SAMPLES):
            text = "".join(chance.choices("abcdefghij ", k=CHARACTERS))
            file.write(json.dumps({"instruction": text[:40], "input": "", "output": text}) + "\n")
    return f"data.folder={folder}", "data.sets=[long.jsonl]"


def folder_of_choices(work: Path, memory: str, rehearse: bool) -> tuple[Path, list[str]]:
    """A folder with a recipe for each point, and their names: the kinds have other numbers of points, and a grid would be a product."""
    recipes, names = work / "choices" / "recipe", []
    data = written_data(work / "data")
    recipes.mkdir(parents=True, exist_ok=True)
    for kind in KINDS:
        if rehearse and kind.gpus > 1:
            continue
        ranks = (f"cluster.ranks_per_node={kind.gpus}", f"training.max_steps={steps_of(kind, data, memory, rehearse)}")
        shape = (*SMALL, "training.micro_batch=2") if rehearse else (*SHAPE, *data)
        keys = [text for text in kind.keys if not (rehearse and text.startswith("training.micro_batch"))]
        for seed in range(1, 1 + (2 if rehearse else kind.points)):
            names.append(f"{kind.name}-{seed}")
            text = recipe([*shape, *QUIET, *keys, *ranks, f"training.seed={seed}"])
            (recipes / f"{names[-1]}.yaml").write_text(text, encoding="utf-8")
    return recipes.parent, names


def recipe(overrides: Sequence[str]) -> str:
    """A choice of the group recipe that says what these overrides say."""
    choices = [text.split("=", 1) for text in overrides if "." not in text.split("=", 1)[0]]
    values: dict[str, dict[str, str]] = {}
    for text in overrides:
        key, _, value = text.partition("=")
        if "." in key:
            values.setdefault(key.split(".", 1)[0], {})[key.split(".", 1)[1]] = value
    lines = ["# @package _global_", "defaults:", *(f"  - override /{group}: {name}" for group, name in choices), "  - _self_"]
    for group, keys in values.items():
        lines += [f"{group}:", *block(keys)]
    return "\n".join(lines) + "\n"


def block(keys: dict[str, str]) -> list[str]:
    inner = {key.split(".", 1)[1]: value for key, value in keys.items() if "." in key}
    plain = [f"  {key}: {value}" for key, value in keys.items() if "." not in key]
    table = next((key.split(".", 1)[0] for key in keys if "." in key), None)
    return plain if table is None else [*plain, f"  {table}:", *(f"    {key}: {value}" for key, value in inner.items())]


class Driver(threading.Thread):
    """What nvidia-smi says of each GPU once a second; nothing where it is absent."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.said: list[tuple[float, dict[str, float]]] = []
        self.done = threading.Event()

    def run(self) -> None:
        query = ("nvidia-smi", "--query-gpu=index,utilization.gpu", "--format=csv,noheader,nounits")
        while shutil.which(query[0]) and not self.done.wait(1.0):
            try:
                text = subprocess.run(query, capture_output=True, text=True, check=False, timeout=10).stdout
            except subprocess.TimeoutExpired:
                continue
            rows = [line.split(",") for line in text.splitlines()]
            self.said.append((time.time(), {index.strip(): float(value) for index, value in rows if value.strip().isdigit()}))

    def mean(self, gpu: str, since: float, until: float) -> float | None:
        """Per cent over a span, in seconds since the epoch."""
        found = [values[gpu] for moment, values in self.said if since <= moment <= until and gpu in values]
        return round(statistics.mean(found), 1) if found else None


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []


def rank_exits(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted((folder / "exit").glob("rank-*.json"))]


def spans(ledger: Path) -> list[dict[str, Any]]:
    """One entry for each start of a point: its GPUs, when its ranks were born, had them and exited, and what it left."""
    found = []
    events = lines(ledger)
    for event in (event for event in events if event["event"] == "started"):
        folder = Path(event["run_folder"])
        doing, exits = lines(folder / "layout" / "doing.jsonl"), rank_exits(folder)
        born = min([entry["time"] for entry in doing], default=event["time"])
        end = next((other for other in events if other.get("point") == event["point"] and other["event"] not in ("started", "sweep")), None)
        steps = [entry for entry in lines(folder / "progress.jsonl") if "loss" in entry]
        found.append(
            {
                "point": event["point"],
                "varied": event["varied"],
                "gpus": event["gpus"] or ["cpu"],
                "born": born,
                "had": max(born, event["time"]),
                "exited": max([entry["time"] for entry in exits], default=None),
                "state": end["event"] if end else None,
                "codes": [entry["code"] for entry in exits],
                "steps": steps[-1]["step"] if steps else 0,
                "of": steps[-1]["of"] if steps else None,
                "losses": [steps[0]["loss"], steps[-1]["loss"]] if steps else [],
                "model": sorted(path.name for path in (folder / "model").glob("*.safetensors")),
                "doing": [[entry["doing"], entry["time"]] for entry in doing],
            }
        )
    return found


def right(point: dict[str, Any]) -> bool:
    """It finished, every rank with 0, after all of its steps, with finite losses and a final model."""
    whole = point["state"] == "finished" and set(point["codes"]) == {0} and point["steps"] == point["of"]
    return whole and bool(point["model"]) and all(abs(loss) < float("inf") for loss in point["losses"])


def summary(points: Sequence[dict[str, Any]], gpus: Sequence[str], driver: Driver) -> dict[str, Any]:
    """The shares of the whole sweep. Times are seconds."""
    over = [point for point in points if point["exited"] is not None]
    if not over:
        return {"line": "sweep", "points": len(points), "makespan": None}
    first, last = min(point["had"] for point in over), max(point["exited"] for point in over)
    held = {gpu: sum(point["exited"] - point["had"] for point in over if gpu in point["gpus"]) for gpu in gpus}
    return {
        "line": "sweep",
        "points": len(points),
        "right": sum(map(right, points)),
        "makespan": round(last - first, 2),
        "share_with_a_rank": {gpu: round(seconds / (last - first), 4) for gpu, seconds in held.items()},
        "driver_mean_percent": {gpu: driver.mean(gpu, first, last) for gpu in gpus},
        "shortest_life": round(min(point["exited"] - point["had"] for point in over), 2),
        "driver_each_second": [[round(moment - first, 1), values] for moment, values in driver.said],
    }


def run_sweep(command: Sequence[str], environment: dict[str, str], work: Path, seconds: float) -> int:
    """Ends it by SIGINT after so many seconds, and by SIGKILL after GRACE more."""
    with (work / "said.txt").open("ab") as said:
        process = subprocess.Popen(command, cwd=work, env=environment, stdout=said, stderr=subprocess.STDOUT)
        for wait, number in ((seconds, signal.SIGINT), (GRACE, signal.SIGTERM), (GRACE, signal.SIGKILL)):
            try:
                return process.wait(wait)
            except subprocess.TimeoutExpired:
                process.send_signal(number)
        return process.wait()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("/tmp/regimen-pool"))
    parser.add_argument("--host-memory", default="200GB", help="of the node, which a container may not show")
    parser.add_argument("--seconds", type=float, default=560, help="after which the sweep is asked to stop")
    parser.add_argument("--ahead", type=float, default=30, help="hydra.launcher.ahead")
    parser.add_argument("--rehearse", action="store_true")
    arguments = parser.parse_args()
    shutil.rmtree(arguments.work, ignore_errors=True)
    choices, names = folder_of_choices(arguments.work, arguments.host_memory, arguments.rehearse)
    environment = environment_for([], 1)
    given = [f"node.host_memory={arguments.host_memory}", "hydra.launcher.gpus=2"]
    if arguments.rehearse:
        environment["CUDA_VISIBLE_DEVICES"], given = "", ["node=cpu", "hydra.launcher.slots=1"]
    command = [sys.executable, "-m", "launcher", "train", "-m", "--config-dir", str(choices), f"recipe={','.join(names)}"]
    command += [f"hydra.launcher.ahead={arguments.ahead:g}", *given, "output=runs"]
    driver = Driver()
    driver.start()
    code = run_sweep(command, environment, arguments.work, arguments.seconds)
    driver.done.set()
    points = [point for ledger in sorted(arguments.work.glob("runs/sweeps/*/ledger.jsonl")) for point in spans(ledger)]
    gpus = ["cpu"] if arguments.rehearse else ["0", "1"]
    facts = {"exit_code": code, "ahead": arguments.ahead, "rehearsal": arguments.rehearse, "surroundings": surroundings()}
    with arguments.out.open("a", encoding="utf-8") as out:
        for line in (*({"line": "point", **point, "right": right(point)} for point in points), {**summary(points, gpus, driver), **facts}):
            out.write(json.dumps(line) + "\n")
    found = summary(points, gpus, driver)
    found.pop("driver_each_second", None)
    print(json.dumps(found))
    return 0 if points and all(map(right, points)) else 1


if __name__ == "__main__":
    raise SystemExit(main())
