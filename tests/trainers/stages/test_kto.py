"""Kahneman-Tversky optimisation: the loss by hand, its weights, and rows that are drawn at random."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Trainer

from conf.schema import Run
from trainers.errors import DataError
from trainers.stages.kto import InTheirOrder, WithOthersAnswers

BETA, GOOD, BAD = 0.5, 1.5, 0.7


def sigmoid(value: float) -> float:
    return torch.tensor(value).sigmoid().item()


@pytest.mark.parametrize("regime", ["regime=full", "regime=lora"])
def test_the_loss_is_that_of_the_paper(
    regime: str,
    tmp_path: Path,
    run_of: Callable[..., Run],
    rows_of: Callable[..., Any],
    trainer_of: Callable[..., Trainer],
    logps_of: Callable[..., torch.Tensor],
) -> None:
    rows = rows_of("kto", 6)
    weights = (f"stage.beta={BETA}", f"stage.desirable_weight={GOOD}", f"stage.undesirable_weight={BAD}")
    run = run_of("kto", regime, *weights, "training.max_steps=2", "optim.lr=0.05", "training.micro_batch=6", "evaluation.micro_batch=6")
    trainer = trainer_of(run, tmp_path, rows, rows)
    own = [(row["prompt_ids"], row["completion_ids"]) for row in rows]
    others = [(row["prompt_ids"], rows[index - 1]["completion_ids"]) for index, row in enumerate(rows)]
    start = [logps_of(trainer.model, *side).sum().item() for side in own + others]
    trainer.train()
    moved = [logps_of(trainer.model, *side).sum().item() - before for side, before in zip(own + others, start, strict=True)]
    kl = max(0.0, sum(moved[6:]) / 6)
    by_hand = [
        GOOD * (1 - sigmoid(BETA * (ratio - kl))) if row["label"] else BAD * (1 - sigmoid(BETA * (kl - ratio)))
        for row, ratio in zip(rows, moved[:6], strict=True)
    ]
    found = trainer.evaluate()
    assert {row["label"] for row in rows} == {True, False}
    assert found["eval_kl"] == pytest.approx(kl, rel=1e-3, abs=1e-4)
    assert found["eval_loss"] == pytest.approx(sum(by_hand) / 6, rel=1e-4)


def test_each_prompt_meets_the_answer_of_its_neighbour() -> None:
    rows = [{"prompt_ids": [1], "completion_ids": [2, 3], "label": True}, {"prompt_ids": [4, 5], "completion_ids": [6], "label": False}]
    batch = WithOthersAnswers(pad_token_id=0, max_length=3)(rows)
    assert batch["input_ids"].tolist() == [[1, 2, 3], [4, 5, 6]]
    assert batch["KL_input_ids"].tolist() == [[1, 6, 0], [4, 5, 2]]  # the last token of the second does not fit any more
    assert batch["KL_completion_mask"].tolist() == [[0, 1, 0], [0, 0, 1]]
    assert batch["label"].tolist() == [True, False]


def test_rows_of_an_evaluation_meet_the_answer_of_the_row_before_in_any_batch() -> None:
    rows = [{"prompt_ids": [number], "completion_ids": [10 + number], "label": True} for number in range(3)]
    paired = InTheirOrder(rows)
    assert [row["KL_completion_ids"] for row in map(paired.__getitem__, range(len(paired)))] == [[12], [10], [11]]
    batch = WithOthersAnswers(pad_token_id=0, max_length=3)([paired[1]])
    assert batch["KL_input_ids"].tolist() == [[1, 10]]


def test_one_labelled_answer_is_too_few_to_evaluate(
    tmp_path: Path, run_of: Callable[..., Run], rows_of: Callable[..., Any], trainer_of: Callable[..., Trainer]
) -> None:
    rows = rows_of("kto", 4)
    with pytest.raises(DataError, match=r"1 labelled answer is held out\. Hold out at least 2"):
        trainer_of(run_of("kto", "regime=full"), tmp_path, rows, rows.select([0]))


def test_rows_are_drawn_at_random(
    tmp_path: Path, run_of: Callable[..., Run], rows_of: Callable[..., Any], trainer_of: Callable[..., Trainer]
) -> None:
    rows = rows_of("kto", 16)
    trainer = trainer_of(run_of("kto", "regime=full"), tmp_path, rows)
    drawn = [prompt for batch in trainer.get_train_dataloader() for prompt in batch["input_ids"][:, :3].tolist()]
    ordered = [row["prompt_ids"][:3] for row in rows]
    assert drawn != ordered
    assert sorted(drawn) == sorted(ordered)


def test_good_answers_gain_on_bad_ones_that_were_not_seen(
    tmp_path: Path, run_of: Callable[..., Run], rows_of: Callable[..., Any], trainer_of: Callable[..., Trainer]
) -> None:
    rows = rows_of("kto", 48)
    run = run_of("kto", "regime=lora", "regime.rank=8", "training.max_steps=24", "evaluation.micro_batch=16")
    trainer = trainer_of(run, tmp_path, rows.select(range(32)), rows.select(range(32, 48)))
    before = trainer.evaluate()
    trainer.train()
    after = trainer.evaluate()
    assert before["eval_loss"] == pytest.approx(0.5, abs=1e-4)
    assert after["eval_loss"] < 0.45
    assert after["eval_reward_chosen"] > after["eval_reward_rejected"] + 0.3
