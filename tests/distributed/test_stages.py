"""Stages that learn from given answers on two ranks: stages, regimes and shardings in chosen pairs, and going on from a checkpoint."""

from types import ModuleType
from typing import Any

import pytest

pytestmark = [pytest.mark.distributed, pytest.mark.timeout(1200)]

ZERO_STAGES = {"ddp": None, "zero2": 2, "zero3": 3}
GROUPS = {
    "ddp": [("dpo", "full_amp"), ("rm", "qlora4"), ("kto", "freeze"), ("simpo", "qlora8")],
    "zero2": [("dpo", "qlora2"), ("rm", "full_bf16"), ("orpo", "lora"), ("pt", "freeze")],
    "zero3": [("dpo", "lora"), ("kto", "full_amp"), ("orpo", "full_fp32"), ("simpo", "qlora4")],
}
CELLS = [(stage, regime, sharding) for sharding, pairs in GROUPS.items() for stage, regime in pairs]
FAMILIES = [("ddp",), ("zero2", "zero3")]  # one pair of processes each
RESUMED = [("rm", "full_bf16", "zero2"), ("kto", "full_amp", "zero3")]  # on one rank: tests/trainers/stages/test_every_regime.py


@pytest.fixture(scope="module")
def results(cells: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str, str], Any]:
    """What each cell left after three steps with a checkpoint at the second; some have made the third one twice."""
    root = tmp_path_factory.mktemp("stages")
    found = {}
    for family in FAMILIES:
        members = [cells.Cell(regime, sharding, stage=stage) for stage, regime, sharding in CELLS if sharding in family]
        left = cells.run_cells(members, root, "torchrun")
        again = {cell: result for cell, result in left.items() if (cell.stage, cell.regime, cell.sharding) in RESUMED}
        if again:
            cells.resume_cells(again, root, "torchrun", step=2)
        found |= {(cell.stage, cell.regime, cell.sharding): result for cell, result in left.items()}
    return found


@pytest.mark.parametrize(("stage", "regime", "sharding"), CELLS)
def test_a_cell_trains_on_two_ranks_and_saves(results: dict, stage: str, regime: str, sharding: str) -> None:
    left = results[stage, regime, sharding]
    log = left.folder.rank_log(0)
    assert [entry["code"] for entry in left.exits] == [0, 0], (left.exits, log.read_text()[-2000:] if log.exists() else "")
    assert [layout["world"] for layout in left.layouts] == [2, 2]
    assert {layout["zero_stage"] for layout in left.layouts} == {ZERO_STAGES[sharding]}
    assert len(left.losses) >= 3
    assert (left.folder.model / ("adapter_model.safetensors" if "lora" in regime else "model.safetensors")).is_file()


@pytest.mark.parametrize(("stage", "regime", "sharding"), RESUMED)
def test_a_run_that_goes_on_repeats_its_losses(results: dict, stage: str, regime: str, sharding: str) -> None:
    losses = results[stage, regime, sharding].losses
    assert len(losses) == 4
    assert losses[3] == losses[2]
