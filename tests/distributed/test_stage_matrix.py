"""Every stage x every regime x DDP, ZeRO-2 and ZeRO-3 on two ranks, each resumed. stage_matrix.py runs its groups side by side."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from reward_models import save_reward_model
from stage_matrix import CELLS, REFUSED, REGIMES, SHARDINGS, STAGES

pytestmark = [pytest.mark.distributed, pytest.mark.long, pytest.mark.timeout(36000)]  # an hour on two idle cores

COMMON = ("training.max_steps=4", "checkpoint.interval=2")
ANSWERS = ("stage.response_length=6", "training.gradient_checkpointing=false")
FURTHER = {"ppo": ANSWERS, "grpo": (*ANSWERS, "stage.generations=4", "stage.rewards=[]", "stage.kl_coef=0.1")}

Group = Callable[[str, str], dict[str, Any]]


def cell_of(cells: ModuleType, stage: str, sharding: str, regime: str, judge: Path) -> Any:
    further = (*FURTHER[stage], f"stage.reward_model={judge}") if stage in FURTHER else ()
    return cells.Cell(regime, sharding, stage=stage, further=(*COMMON, *further))


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_reward_model(tmp_path_factory.mktemp("judge"))


@pytest.fixture(scope="module")
def trained(cells: ModuleType, judge: Path, tmp_path_factory: pytest.TempPathFactory) -> Group:
    """By stage and sharding, what each regime left after four steps, of which the last two were made twice."""

    @cache
    def group(stage: str, sharding: str) -> dict[str, Any]:
        root = tmp_path_factory.mktemp(f"{stage}-{sharding}")
        regimes = [cell[2] for cell in CELLS if cell[:2] == (stage, sharding)]
        left = cells.run_cells([cell_of(cells, stage, sharding, regime, judge) for regime in regimes], root, "torchrun")
        cells.resume_cells(left, root, "torchrun", step=2)
        return {cell.regime: result for cell, result in left.items()}

    return group


@pytest.mark.parametrize("stage", STAGES)
def test_the_pairs_left_out_are_those_that_are_refused(stage: str, cells: ModuleType, judge: Path) -> None:
    every = {(regime, sharding): cell_of(cells, stage, sharding, regime, judge) for sharding in SHARDINGS for regime in REGIMES}
    assert {pair for pair, cell in every.items() if not cell.allowed} == REFUSED


@pytest.mark.parametrize(("stage", "sharding", "regime"), CELLS)
def test_a_pair_trains_saves_and_goes_on_with_the_same_losses(trained: Group, stage: str, sharding: str, regime: str) -> None:
    left = trained(stage, sharding)[regime]
    log = left.folder.rank_log(0)
    assert [entry["code"] for entry in left.exits] == [0, 0], (left.exits, log.read_text()[-2000:] if log.exists() else "")
    assert len(left.losses) == 6
    assert left.losses[4:] == left.losses[2:4]
