"""Odds-ratio preference optimisation: the loss by hand, and chosen answers that get ahead."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Trainer

from conf.schema import Run
from trainers.stages.shared.pairs import pairs_batch

BETA = 0.4


def log_odds(mean_logp: float) -> float:
    """log(p / (1 - p)) of p = exp(mean_logp)."""
    return mean_logp - math.log(1 - math.exp(mean_logp))


def test_the_loss_is_that_of_the_paper(
    tmp_path: Path, run_of: Callable[..., Run], rows_of: Callable[..., Any], trainer_of: Callable[..., Trainer], logps_of: Callable[..., torch.Tensor]
) -> None:
    rows = rows_of("orpo", 4)
    trainer = trainer_of(run_of("orpo", "regime=full", f"stage.beta={BETA}", "evaluation.micro_batch=4"), tmp_path, rows, rows)
    means = [[logps_of(trainer.model, row["prompt_ids"], row[side]).mean().item() for side in ("chosen_ids", "rejected_ids")] for row in rows]
    leads = [log_odds(chosen) - log_odds(rejected) for chosen, rejected in means]
    # the paper's next-token loss is over the whole chosen text, prompt included
    texts = torch.cat([logps_of(trainer.model, row["prompt_ids"][:1], row["prompt_ids"][1:] + row["chosen_ids"]) for row in rows])
    found = trainer.evaluate()
    by_hand = -texts.mean().item() + BETA * sum(math.log1p(math.exp(-lead)) for lead in leads) / 4
    assert found["eval_loss"] == pytest.approx(by_hand, rel=1e-4)
    assert found["eval_log_odds"] == pytest.approx(sum(leads) / 4, abs=1e-4)


@pytest.mark.parametrize("regime", [("regime=full",), ("regime=lora", "regime.rank=8")])
def test_chosen_answers_get_ahead_in_unseen_pairs(
    regime: tuple[str, ...], tmp_path: Path, run_of: Callable[..., Run], rows_of: Callable[..., Any], trainer_of: Callable[..., Trainer]
) -> None:
    rows = rows_of("orpo", 48)
    run = run_of("orpo", *regime, "training.max_steps=32", "evaluation.micro_batch=16")
    trainer = trainer_of(run, tmp_path, rows.select(range(32)), rows.select(range(32, 48)))
    before = trainer.evaluate()
    trainer.train()
    after = trainer.evaluate()
    assert after["eval_loss"] < before["eval_loss"] - 0.5
    assert before["eval_reward_accuracy"] < 0.9
    assert after["eval_reward_accuracy"] == 1.0


def test_both_sides_of_a_pair_carry_the_prompt_and_learn_their_answer_alone() -> None:
    rows = [{"prompt_ids": [1, 2], "chosen_ids": [3], "rejected_ids": [4, 5]}, {"prompt_ids": [6], "chosen_ids": [7], "rejected_ids": [8]}]
    batch = {name: tensor.tolist() for name, tensor in pairs_batch(rows, padding=0, multiple=1).items()}
    assert batch == {
        "chosen_input_ids": [[1, 2, 3], [6, 7, 0]],
        "chosen_attention_mask": [[1, 1, 1], [1, 1, 0]],
        "chosen_labels": [[-100, -100, 3], [-100, 7, -100]],
        "rejected_input_ids": [[1, 2, 4, 5], [6, 8, 0, 0]],
        "rejected_attention_mask": [[1, 1, 1, 1], [1, 1, 0, 0]],
        "rejected_labels": [[-100, -100, 4, 5], [-100, 8, -100, -100]],
    }
