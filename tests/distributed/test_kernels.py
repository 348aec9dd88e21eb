"""The fused kernels on two ranks: the losses and gradients of the plain ones, with accumulation and checkpointing."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.described import described

pytestmark = pytest.mark.distributed

SHORT = ("model=demo", "data=demo", "node=cpu", "cluster.ranks_per_node=2", "training.precision=fp32", "training.max_steps=5", "optim.warmup=0")
QUIET = ("checkpoint.interval=0", "evaluation.interval=0", "gate.mode=off")
BATCH = ("training.micro_batch=2", "training.accumulation=2", "training.gradient_checkpointing=true")
KERNELS = {"plain": ("training.kernels=plain",), "fused": ("training.kernels=fused", "training.attention=varlen")}


@dataclass(frozen=True)
class KernelCell:
    """A cell of tests/distributed/cells.py with one kind of kernels."""

    stage: str
    sharding: str
    kernels: str
    regime: str = "lora"

    @cached_property
    def settled(self) -> Any:
        chosen = (f"stage={self.stage}", f"sharding={self.sharding}", f"regime={self.regime}", *KERNELS[self.kernels])
        return described(*SHORT, *QUIET, *BATCH, *chosen)


def learned(cells: ModuleType, stages: Sequence[str], fused: Sequence[tuple[str, str]], root: Path) -> dict[KernelCell, list[tuple[float, float]]]:
    """The loss and the norm of the gradients of every step. One pair of ranks for all; the plain kernels come before it has seen any others."""
    members = [*(KernelCell(stage, "ddp", "plain") for stage in stages), *(KernelCell(*pair, "fused") for pair in fused)]
    left: dict[KernelCell, Any] = {}
    for kernels in KERNELS:
        (root / kernels).mkdir()
        left |= cells.lay_out([cell for cell in members if cell.kernels == kernels], root / kernels, "torchrun")
    cells.train_folders(members[0], list(left.values()), root, "torchrun")
    found = {}
    for cell, result in left.items():
        assert [entry["code"] for entry in result.exits] == [0, 0], result.exits
        entries = [json.loads(line) for line in result.folder.progress.read_text().splitlines()]
        found[cell] = [(entry["loss"], entry["grad_norm"]) for entry in entries if "loss" in entry]
    return found


def assert_learns_the_same(cells: ModuleType, stages: Sequence[str], fused: Sequence[tuple[str, str]], root: Path) -> None:
    """The fused kernels of each pair of stage and sharding, and the plain ones of the stage under plain data parallelism."""
    found = learned(cells, stages, fused, root)
    for stage, sharding in fused:
        plain, ours = found[KernelCell(stage, "ddp", "plain")], found[KernelCell(stage, sharding, "fused")]
        assert len(plain) == 5, stage
        for one, other in zip(ours, plain, strict=True):
            assert one == pytest.approx(other, rel=1e-4), (stage, sharding)


def test_two_ranks_learn_what_the_plain_kernels_learn(cells: ModuleType, tmp_path: Path) -> None:
    assert_learns_the_same(cells, ["sft"], [("sft", "ddp"), ("sft", "zero2")], tmp_path)


@pytest.mark.long
def test_two_ranks_prefer_what_the_plain_kernels_prefer(cells: ModuleType, tmp_path: Path) -> None:
    """kto's estimate of KL is that of both ranks."""
    stages = ("rm", "dpo", "kto", "orpo", "simpo")
    assert_learns_the_same(cells, stages, [(stage, "ddp") for stage in stages], tmp_path)
