"""The same pairs of a step on two ranks, in micro-batches of any size: the same loss and gradient where no pair or token weighs more than another."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.described import described

pytestmark = [pytest.mark.distributed, pytest.mark.long]

SHORT = ("model=demo", "data=demo", "node=cpu", "cluster.ranks_per_node=2", "sharding=ddp", "training.precision=fp32", "training.max_steps=4")
QUIET = ("checkpoint.interval=0", "evaluation.interval=0", "gate.mode=off", "optim.warmup=0", "optim.lr=1e-4", "training.effective_batch=8")
STAGES = {"orpo": ("stage=orpo",), "simpo": ("stage=simpo", "stage.sft_weight=0.5"), "dpo": ("stage=dpo", "stage.sft_weight=0.5")}


@dataclass(frozen=True)
class BatchCell:
    """A cell of tests/distributed/cells.py with one micro-batch."""

    stage: str
    size: int
    sharding: str = "ddp"
    regime: str = "lora"

    @cached_property
    def settled(self) -> Any:
        return described(*SHORT, *QUIET, *STAGES[self.stage], f"regime={self.regime}", f"training.micro_batch={self.size}")


def test_two_ranks_learn_the_same_from_micro_batches_of_any_size(cells: ModuleType, tmp_path: Path) -> None:
    left: dict[BatchCell, Any] = {}
    for size in (1, 2, 4):
        (tmp_path / f"of-{size}").mkdir()
        left |= cells.lay_out([BatchCell(stage, size) for stage in STAGES], tmp_path / f"of-{size}", "torchrun")
    cells.train_folders(next(iter(left)), list(left.values()), tmp_path, "torchrun")
    found: dict[str, list[list[tuple[float, float]]]] = {stage: [] for stage in STAGES}
    for cell, result in left.items():
        assert [entry["code"] for entry in result.exits] == [0, 0], result.exits
        entries = [json.loads(line) for line in result.folder.progress.read_text().splitlines()]
        found[cell.stage].append([(entry["loss"], entry["grad_norm"]) for entry in entries if "loss" in entry])
    for stage, runs in found.items():
        assert [len(steps) for steps in runs] == [4, 4, 4], stage
        for steps in runs[1:]:
            assert steps[0] == pytest.approx(runs[0][0], rel=1e-6), stage  # before rounding has moved the weights
            for ours, theirs in zip(steps, runs[0], strict=True):
                assert ours == pytest.approx(theirs, rel=1e-5), stage
