"""Stages that learn from given answers on two ranks: stages, regimes and shardings in chosen pairs, and going on from a checkpoint."""

from types import ModuleType
from typing import Any

import pytest

pytestmark = pytest.mark.distributed

ZERO_STAGES = {"ddp": None, "zero2": 2, "zero3": 3}
GROUPS = {
    "ddp": [("dpo", "full_amp"), ("rm", "qlora4"), ("kto", "freeze"), ("simpo", "qlora8")],
    "zero2": [("dpo", "full_bf16"), ("rm", "qlora2"), ("orpo", "lora"), ("pt", "freeze")],
    "zero3": [("dpo", "lora"), ("kto", "full_amp"), ("orpo", "full_fp32"), ("simpo", "qlora4")],
}
CELLS = [(stage, regime, sharding) for sharding, pairs in GROUPS.items() for stage, regime in pairs]
RESUMED = [("dpo", "full_bf16", "zero2"), ("kto", "full_amp", "zero3")]  # on one rank: tests/trainers/stages/test_every_regime.py

Results = dict[tuple[str, ...], Any]


@pytest.fixture(scope="module")
def results(cells: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Results:
    """What each cell left after three steps, and, under (..., "resumed"), what the same run left that went on from its second one."""
    root = tmp_path_factory.mktemp("stages")
    members = {cell: cells.Cell(cell[1], cell[2], stage=cell[0]) for cell in CELLS}
    left = cells.lay_out(list(members.values()), root, "torchrun")
    found = {cell: left[member] for cell, member in members.items()}
    found |= {(*cell, "resumed"): cells.going_on(members[cell], found[cell], step=2) for cell in RESUMED}
    cells.train_folders(members[CELLS[0]], list(found.values()), root, "torchrun")
    return found


@pytest.mark.parametrize(("stage", "regime", "sharding"), CELLS)
def test_a_cell_trains_on_two_ranks_and_saves(results: Results, stage: str, regime: str, sharding: str) -> None:
    left = results[stage, regime, sharding]
    log = left.folder.rank_log(0)
    assert [entry["code"] for entry in left.exits] == [0, 0], (left.exits, log.read_text()[-2000:] if log.exists() else "")
    assert [layout["world"] for layout in left.layouts] == [2, 2]
    assert {layout["zero_stage"] for layout in left.layouts} == {ZERO_STAGES[sharding]}
    assert len(left.losses) == 3
    assert (left.folder.model / ("adapter_model.safetensors" if "lora" in regime else "model.safetensors")).is_file()


@pytest.mark.parametrize("cell", RESUMED, ids="-".join)
def test_a_run_that_goes_on_repeats_its_losses(results: Results, cell: tuple[str, ...]) -> None:
    whole, resumed = results[cell], results[(*cell, "resumed")]
    assert [entry["code"] for entry in resumed.exits] == [0, 0]
    assert resumed.losses == whole.losses[2:]
    assert len(resumed.losses) == 1
