"""Cells of a training matrix: composing them, running them in few processes, reading what they left."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from conf.committed import committed, step_of
from conf.run_dir import RunDir, save_run
from launcher.composition.compose import compose
from launcher.facts.node import settle_node
from launcher.gate.settle import settled
from launcher.launch.backends import accelerate_config, command
from launcher.rules.pairs import incompatibilities
from launcher.rules.ranges import check_values

SCRIPT = Path(__file__).with_name("run_cells.py")
TINY = (
    "cluster.ranks_per_node=2",
    "training.max_steps=3",
    "training.micro_batch=4",
    "data.max_samples=64",
    "evaluation.interval=0",
    "evaluation.at_start=true",
    "evaluation.at_end=true",
    "checkpoint.interval=2",
    "evaluation.answers=0",
    "model.architecture.hidden_size=64",
    "model.architecture.intermediate_size=128",
    "optim.lr=1e-2",
    "optim.warmup=0",
)
REGIMES = {
    "full_bf16": ("regime=full", "training.precision=bf16"),
    "full_amp": ("regime=full", "training.precision=bf16_amp"),
    "full_fp32": ("regime=full", "training.precision=fp32"),
    "freeze": ("regime=freeze", "regime.layers=1", "training.precision=fp32"),
    "lora": ("regime=lora", "training.precision=fp32"),
    "qlora8": ("regime=qlora", "regime.bits=8", "training.precision=bf16_amp"),
    "qlora4": ("regime=qlora", "regime.bits=4", "training.precision=bf16_amp"),
    "qlora2": ("regime=qlora", "regime.bits=2", "training.precision=bf16_amp"),
}


@dataclass(frozen=True)
class Cell:
    regime: str
    sharding: str
    node: str = "cpu"
    stage: str = "sft"
    further: tuple[str, ...] = ()

    @property
    def overrides(self) -> tuple[str, ...]:
        regime = REGIMES[self.regime]
        # recipe=demo sets rank and alpha, which only adapters have
        described = ("recipe=demo",) if "lora" in self.regime else ("model=demo", "data=demo")
        # more than one row an evaluated batch, as kto needs
        places = (f"sharding={self.sharding}", f"node={self.node}", f"stage={self.stage}", "evaluation.micro_batch=4")
        return (*described, *TINY, *regime, *places, *self.further)

    @property
    def allowed(self) -> bool:
        return not incompatibilities(self.settled)

    @cached_property
    def settled(self) -> Any:
        run = compose(self.overrides)
        check_values(run)
        return settled(run, settle_node(run.node, 1).node)


@dataclass(frozen=True)
class Left:
    """What a cell left in its folder."""

    folder: RunDir

    @property
    def exits(self) -> list[dict[str, Any]]:
        return [json.loads(path.read_text()) for path in sorted(self.folder.exits.glob("rank-*.json"))]

    @property
    def layouts(self) -> list[dict[str, Any]]:
        return [json.loads(path.read_text()) for path in sorted(self.folder.layouts.glob("rank-*.json"))]

    @property
    def losses(self) -> list[float]:
        entries = [json.loads(line) for line in self.folder.progress.read_text().splitlines()]
        return [entry["loss"] for entry in entries if "loss" in entry]


def run_cells(cells: Sequence[Any], root: Path, backend: str) -> dict[Any, Left]:
    """Train all cells in one pair of ranks started by that backend."""
    left = lay_out(cells, root, backend)
    train_folders(cells[0], list(left.values()), root, backend)
    return left


def lay_out(cells: Sequence[Any], root: Path, backend: str) -> dict[Any, Left]:
    """A folder with its run for every cell."""
    left = {}
    for cell in cells:
        run_dir = RunDir(root / f"{backend}-{cell.stage}-{cell.regime}-{cell.sharding}")
        run_dir.path.mkdir()
        save_run(cell.settled, run_dir)
        left[cell] = Left(run_dir)
    return left


def going_on(cell: Any, first: Left, step: int, called: str = "resumed") -> Left:
    """A folder beside that of `first`, for the same run going on from that run's checkpoint: both can be trained by one pair of ranks."""
    again = RunDir(first.folder.path.with_name(f"{first.folder.path.name}-{called}"))
    again.checkpoints.mkdir(parents=True)
    again.checkpoint(step).symlink_to(first.folder.checkpoint(step))  # alone: ranks go on from the newest
    again.base.symlink_to(first.folder.base)
    save_run(cell.settled, again)
    return Left(again)


def resume_cells(left: dict[Any, Left], root: Path, backend: str, step: int) -> None:
    """Train trained cells again from their checkpoint of that step, in new processes; progress.jsonl gets the repeated steps."""
    for result in left.values():
        for later in committed(result.folder):
            if step_of(later) > step:
                shutil.rmtree(later)  # ranks go on from the newest
        shutil.rmtree(result.folder.exits)  # as the launcher does: ranks that wait for data look there for a failure
    train_folders(next(iter(left)), list(left.values()), root, backend)


def train_folders(first: Any, left: Sequence[Left], root: Path, backend: str) -> None:
    """One after another in ranks started as cell `first` says; ddp before ZeRO: accelerate never leaves DeepSpeed again within one process."""
    run, beside = first.settled, RunDir(root / f"{backend}-first-{first.sharding}")
    beside.path.mkdir(exist_ok=True)
    run.backend.name = backend
    if backend == "accelerate":
        beside.accelerate_config.write_text(accelerate_config(run))
    started = command(run, beside)
    position = started.argv.index("trainers")
    argv = (*started.argv[: position - 1], str(SCRIPT), *(str(result.folder.path) for result in left))
    done = subprocess.run(argv, env=started.environment(os.environ), capture_output=True, text=True, check=False, cwd=root)
    if not all(result.exits for result in left):
        print(done.stdout[-3000:], done.stderr[-3000:], file=sys.stderr)
