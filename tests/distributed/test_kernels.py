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


def learned(cells: ModuleType, kernels: str, pairs: Sequence[tuple[str, str]], root: Path) -> dict[tuple[str, str], list[tuple[float, float]]]:
    """The loss and the norm of the gradients of every step, by (stage, sharding). One pair of ranks for all, which saw no other kernels."""
    (root / kernels).mkdir()
    left = cells.run_cells([KernelCell(*pair, kernels) for pair in pairs], root / kernels, "torchrun")
    found = {}
    for cell, result in left.items():
        assert [entry["code"] for entry in result.exits] == [0, 0], result.exits
        entries = [json.loads(line) for line in result.folder.progress.read_text().splitlines()]
        found[cell.stage, cell.sharding] = [(entry["loss"], entry["grad_norm"]) for entry in entries if "loss" in entry]
    return found


def assert_learns_the_same(cells: ModuleType, pairs: Sequence[tuple[str, str]], root: Path) -> None:
    plain, fused = (learned(cells, kernels, pairs, root) for kernels in KERNELS)
    for pair in pairs:
        assert len(plain[pair]) == 5, pair
        for ours, theirs in zip(fused[pair], plain[pair], strict=True):
            assert ours == pytest.approx(theirs, rel=1e-4), pair


def test_two_ranks_learn_what_the_plain_kernels_learn(cells: ModuleType, tmp_path: Path) -> None:
    assert_learns_the_same(cells, [("sft", "ddp"), ("sft", "zero2")], tmp_path)


@pytest.mark.long
def test_two_ranks_prefer_what_the_plain_kernels_prefer(cells: ModuleType, tmp_path: Path) -> None:
    """kto's estimate of KL is that of both ranks."""
    assert_learns_the_same(cells, [(stage, "ddp") for stage in ("rm", "dpo", "kto", "orpo", "simpo")], tmp_path)
