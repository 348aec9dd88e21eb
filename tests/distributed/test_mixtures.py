"""Quantised mixtures on two ranks: each draws or reads the same experts, and DDP and ZeRO-2 learn the same."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from safetensors.torch import load_file

from tests.described import described

pytestmark = [pytest.mark.distributed, pytest.mark.long]

SHORT = ("model=mixtral_8x7b", "model.init=random", "model.path=null", "model.tokenizer=bytes", "node=cpu", "cluster.ranks_per_node=2")
SIZES = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 264}
ARCHITECTURE = tuple(f"model.architecture.{name}={value}" for name, value in {**SIZES, "num_local_experts": 4}.items())
TRAINING = ("data=demo", "data.max_samples=64", "training.precision=fp32", "training.max_steps=3", "training.micro_batch=4", "optim.lr=0.01")
QUIET = ("checkpoint.interval=2", "evaluation.interval=0", "gate.mode=off", "optim.warmup=0", "regime=qlora")


@dataclass(frozen=True)
class MixtureCell:
    """A cell of tests/distributed/cells.py."""

    sharding: str
    bits: int
    stage: str = "sft"
    targets: str = "all-linear"

    @property
    def regime(self) -> str:
        return f"qlora{self.bits}"

    @cached_property
    def settled(self) -> Any:
        return described(
            *SHORT, *ARCHITECTURE, *TRAINING, *QUIET, f"sharding={self.sharding}", f"regime.bits={self.bits}", f"regime.targets=[{self.targets}]"
        )


def test_ddp_and_zero2_learn_the_same_and_go_on_from_a_checkpoint(cells: ModuleType, tmp_path: Path) -> None:
    members = [MixtureCell(sharding, bits) for sharding in ("ddp", "zero2") for bits in (4, 2)]
    left: dict[MixtureCell, Any] = cells.run_cells(members, tmp_path, "torchrun")
    assert all([entry["code"] for entry in result.exits] == [0, 0] for result in left.values()), [result.exits for result in left.values()]
    by_cell = {(cell.sharding, cell.bits): result.losses for cell, result in left.items()}
    for bits in (4, 2):
        assert len(by_cell["ddp", bits]) == 3
        assert by_cell["zero2", bits] == pytest.approx(by_cell["ddp", bits], rel=1e-4)
        assert by_cell["ddp", bits][-1] < by_cell["ddp", bits][0]
    assert not any(result.folder.base.exists() for result in left.values())

    cells.resume_cells({cell: result for cell, result in left.items() if cell.bits == 4}, tmp_path, "torchrun", 2)

    for cell, result in left.items():
        if cell.bits == 4:
            entries = [json.loads(line) for line in result.folder.progress.read_text().splitlines()]
            third = [entry["loss"] for entry in entries if "loss" in entry and entry["step"] == 3]
            assert len(third) == 2
            assert third[1] == pytest.approx(third[0], rel=1e-6)


def test_adapters_of_experts_learn_the_same_under_ddp_and_zero2_and_go_on_from_a_checkpoint(cells: ModuleType, tmp_path: Path) -> None:
    members = [MixtureCell(sharding, 4, targets="all-linear,experts") for sharding in ("ddp", "zero2")]
    left: dict[MixtureCell, Any] = cells.run_cells(members, tmp_path, "torchrun")
    assert all([entry["code"] for entry in result.exits] == [0, 0] for result in left.values()), [result.exits for result in left.values()]
    ddp, zero2 = (left[cell].losses for cell in members)
    assert zero2 == pytest.approx(ddp, rel=1e-4)
    assert ddp[-1] < ddp[0]
    saved = load_file(left[members[0]].folder.model / "adapter_model.safetensors")
    assert all(saved[name].abs().max() > 0 for name in saved if "experts" in name and "lora_B" in name)
    assert sum("experts" in name for name in saved) == 2 * 4  # layers; A and B of both matrices

    cells.resume_cells(left, tmp_path, "torchrun", 2)

    for result in left.values():
        entries = [json.loads(line) for line in result.folder.progress.read_text().splitlines()]
        third = [entry["loss"] for entry in entries if "loss" in entry and entry["step"] == 3]
        assert len(third) == 2
        assert third[1] == pytest.approx(third[0], rel=1e-6)
