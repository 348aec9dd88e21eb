"""Measures how soon the board's verdict follows a change of the form of a new run.

    python -m benchmarks.speed.verdict [--changes 300] [--out benchmarks/results/speed/verdict.json]

One process that stays warm, as the board's worker is, is asked about forms each of which differs from the one before it in one choice or one value,
drawn with a seed. Counted are CPU seconds of the whole answer (text, values and choices), since other work on the machine lengthens the wall time;
beside each, those of a plain `compose` of the same overrides in the same process, so that other machines can be compared. What the browser and HTTP
add is not in it. Exits 1 where the 95th percentile of a kind of change misses its goal.
"""

import argparse
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import chdir, suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median

from benchmarks.running.cpus import surroundings
from launcher.board.form import overrides_of
from launcher.board.worker import answer
from launcher.composition.compose import compose
from launcher.errors import RegimenError

RESULTS = Path(__file__).resolve().parents[1] / "results" / "speed" / "verdict.json"
PACKAGES = ("regimen", "hydra-core", "omegaconf", "pyyaml")
SEED, CHANGES, PERCENTILE = 17, 300, 95
Form = dict[str, str]
STARTS: tuple[Form, ...] = (
    {"recipe": "demo", "node": "cpu"},
    {"model": "llama3.1_8b", "data": "demo", "node": "a100_80", "node.gpus": "2", "regime": "full"},
    {"model": "llama3.1_70b", "data": "demo", "node": "h100_80", "node.gpus": "8", "regime": "qlora", "sharding": "zero3"},
)
KINDS: dict[str, Mapping[str, Sequence[str]]] = {
    "number or truth": {
        "optim.lr": ("1e-4", "2e-4", "5e-5"),
        "optim.weight_decay": ("0.0", "0.1"),
        "training.micro_batch": ("1", "2", "4", "8"),
        "training.max_steps": ("10", "100", "1000"),
        "training.seed": ("1", "2", "3"),
        "data.cutoff": ("512", "1024", "2048"),
        "data.packing": ("true", "false"),
        "checkpoint.interval": ("10", "100"),
    },
    "text": {
        "name": ("mine", "yours", "theirs"),
        "training.precision": ("bf16", "bf16_amp"),
        "tracking.project": ("one", "two"),
    },
    "group": {
        "regime": ("full", "freeze", "lora", "qlora"),
        "sharding": ("ddp", "zero2", "zero3", "fsdp2"),
        "optim": ("adamw", "sgd", "lion"),
        "model": ("qwen2.5_0.5b", "qwen2.5_7b", "llama3.1_8b"),
    },
}
GOALS = {"number or truth": 0.1, "text": 0.1, "group": 0.7}  # seconds


@dataclass(frozen=True)
class Change:
    kind: str
    seconds: float  # of the CPU, of the verdict
    compose: float  # of the CPU, of a plain compose of the same overrides


@dataclass(frozen=True)
class Row:
    kind: str
    changes: int
    goal_seconds: float
    met: bool  # by the 95th percentile
    cpu_seconds: dict[str, float]
    ratio_to_compose: dict[str, float]


def main() -> int:
    arguments, before = parsed(), os.getloadavg()
    with tempfile.TemporaryDirectory(prefix="regimen-verdict-") as folder, chdir(folder):
        rows = list(table(list(measured(arguments.changes))))
    arguments.out.write_text(json.dumps({**surroundings(PACKAGES, before), "changes": [*map(asdict, rows)]}, indent=1) + "\n")
    for row in rows:
        middle, p95, most = (f"{1000 * row.cpu_seconds[name]:.0f} ms" for name in ("median", "p95", "most"))
        print(f"{row.kind:<16} {row.changes:>4} changes, of the CPU: median {middle}, 95th percentile {p95}, most {most}")
        print(f"{'':<16} goal {1000 * row.goal_seconds:.0f} ms; {row.ratio_to_compose['median']:.2f} times a plain compose")
    return 0 if all(row.met for row in rows) else 1


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure how soon the verdict follows a change.")
    parser.add_argument("--changes", type=int, default=CHANGES)
    parser.add_argument("--out", type=lambda text: Path(text).absolute(), default=RESULTS)
    return parser.parse_args()


def measured(changes: int) -> Iterator[Change]:
    """Some changes from each start; a change leads to the form from which the next one is made, and each start is asked about first."""
    drawn = random.Random(SEED)
    for start in STARTS:
        form = start
        verdict(form)
        for _ in range(changes // len(STARTS)):
            kind = drawn.choice([*KINDS])
            key = drawn.choice([*KINDS[kind]])
            form = {**form, key: drawn.choice([value for value in KINDS[kind][key] if value != form.get(key)])}
            if kind == "group":  # the settings of the choice before are left out, as the page does
                form = {name: text for name, text in form.items() if not name.startswith(f"{key}.")}
            yield Change(kind, cpu(partial(verdict, form)), cpu(partial(composed, form)))


def verdict(form: Form) -> None:
    answer({"ask": "plan", "form": form, "roots": [os.getcwd()]})


def composed(form: Form) -> None:
    with suppress(RegimenError):
        compose(overrides_of(form))


def cpu(work: Callable[[], None]) -> float:
    begun = time.process_time()
    work()
    return time.process_time() - begun


def table(changes: Sequence[Change]) -> Iterator[Row]:
    for kind, goal in GOALS.items():
        own = [change for change in changes if change.kind == kind]
        seconds = [change.seconds for change in own]
        ratios = [change.seconds / change.compose for change in own]
        yield Row(kind, len(own), goal, percentile(seconds) <= goal, spread(seconds), spread(ratios))


def spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": round(median(values), 4), "p95": round(percentile(values), 4), "most": round(max(values), 4)}


def percentile(values: Sequence[float]) -> float:
    """The smallest value that PERCENTILE of a hundred do not exceed."""
    return sorted(values)[-(-PERCENTILE * len(values) // 100) - 1]


if __name__ == "__main__":
    sys.exit(main())
