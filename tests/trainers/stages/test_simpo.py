"""Simple preference optimisation: the loss by hand, and chosen answers that get ahead."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Trainer

from conf.schema import Run

BETA, MARGIN = 2.0, 0.8


@pytest.mark.parametrize("sft_weight", [0.0, 0.5])
def test_the_loss_is_that_of_the_paper(
    sft_weight: float,
    tmp_path: Path,
    run_of: Callable[..., Run],
    rows_of: Callable[..., Any],
    trainer_of: Callable[..., Trainer],
    logps_of: Callable[..., torch.Tensor],
) -> None:
    rows = rows_of("simpo", 4)
    overrides = (f"stage.beta={BETA}", f"stage.margin={MARGIN}", f"stage.sft_weight={sft_weight}", "evaluation.micro_batch=4")
    trainer = trainer_of(run_of("simpo", "regime=full", *overrides), tmp_path, rows, rows)
    answers = [[logps_of(trainer.model, row["prompt_ids"], row[side]) for side in ("chosen_ids", "rejected_ids")] for row in rows]
    leads = [BETA * (chosen.mean() - rejected.mean()).item() for chosen, rejected in answers]
    learned = torch.cat([chosen for chosen, _ in answers]).mean().item()
    found = trainer.evaluate()
    by_hand = sum(math.log1p(math.exp(-(lead - MARGIN))) for lead in leads) / 4 - sft_weight * learned
    assert found["eval_loss"] == pytest.approx(by_hand, rel=1e-4)
    assert found["eval_reward_margin"] == pytest.approx(sum(leads) / 4, abs=1e-4)


@pytest.mark.parametrize("regime", [("regime=full",), ("regime=lora", "regime.rank=8")])
def test_chosen_answers_get_ahead_in_unseen_pairs(
    regime: tuple[str, ...], tmp_path: Path, run_of: Callable[..., Run], rows_of: Callable[..., Any], trainer_of: Callable[..., Trainer]
) -> None:
    rows = rows_of("simpo", 48)
    run = run_of("simpo", *regime, f"stage.beta={BETA}", f"stage.margin={MARGIN}", "training.max_steps=24", "evaluation.micro_batch=16")
    trainer = trainer_of(run, tmp_path, rows.select(range(32)), rows.select(range(32, 48)))
    before = trainer.evaluate()
    trainer.train()
    after = trainer.evaluate()
    assert before["eval_reward_accuracy"] < 0.9
    assert after["eval_reward_accuracy"] == 1.0
    assert after["eval_reward_margin"] > before["eval_reward_margin"] + 1
