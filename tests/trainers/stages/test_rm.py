"""Reward modelling: the loss by hand, pairs that come to be told apart, and the head that learns beside an adapter."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import Trainer

from conf.schema import Run
from trainers.stages.rm import WholeTexts


def score(model: torch.nn.Module, tokens: list[int]) -> float:
    with torch.no_grad():
        return model(input_ids=torch.tensor([tokens])).logits.item()


def test_the_loss_is_that_of_the_difference_of_two_scores(
    tmp_path: Path, run_of: Callable[..., Run], rows_of: Callable[..., Any], trainer_of: Callable[..., Trainer]
) -> None:
    rows = rows_of("rm", 5)
    trainer = trainer_of(run_of("rm", "regime=full", "evaluation.micro_batch=5"), tmp_path, rows, rows)
    leads = [
        score(trainer.model, row["prompt_ids"] + row["chosen_ids"]) - score(trainer.model, row["prompt_ids"] + row["rejected_ids"]) for row in rows
    ]
    found = trainer.evaluate()
    assert found["eval_loss"] == pytest.approx(sum(math.log1p(math.exp(-lead)) for lead in leads) / 5, rel=1e-4)
    assert found["eval_reward_margin"] == pytest.approx(sum(leads) / 5, abs=1e-5)
    assert found["eval_reward_accuracy"] == pytest.approx(sum(lead > 0 for lead in leads) / 5)


@pytest.mark.parametrize("regime", [("regime=full",), ("regime=lora", "regime.rank=8")])
def test_unseen_pairs_come_to_be_told_apart(
    regime: tuple[str, ...], tmp_path: Path, run_of: Callable[..., Run], rows_of: Callable[..., Any], trainer_of: Callable[..., Trainer]
) -> None:
    rows = rows_of("rm", 48)
    run = run_of("rm", *regime, "training.max_steps=20", "evaluation.micro_batch=16")
    trainer = trainer_of(run, tmp_path, rows.select(range(32)), rows.select(range(32, 48)))
    before = trainer.evaluate()
    trainer.train()
    after = trainer.evaluate()
    assert before["eval_reward_accuracy"] < 0.9
    assert after["eval_reward_accuracy"] == 1.0
    assert after["eval_reward_margin"] > before["eval_reward_margin"] + 1


def test_the_head_learns_beside_an_adapter_and_is_saved_with_it(
    tmp_path: Path, run_of: Callable[..., Run], rows_of: Callable[..., Any], trainer_of: Callable[..., Trainer]
) -> None:
    trainer = trainer_of(run_of("rm", "regime=lora", "regime.rank=4"), tmp_path, rows_of("rm"))
    trainer.train()
    trainer.save_model(str(tmp_path / "model"))
    saved = load_file(tmp_path / "model" / "adapter_model.safetensors")["base_model.model.score.weight"]
    base = load_file(tmp_path / "base" / "model.safetensors")["score.weight"]
    assert saved.shape == base.shape == (1, 32)
    assert (saved - base).abs().max() > 1e-3
    assert json.loads((tmp_path / "base" / "config.json").read_text())["id2label"] == {"0": "LABEL_0"}


def test_the_head_learns_beside_frozen_layers_too(
    tmp_path: Path, run_of: Callable[..., Run], rows_of: Callable[..., Any], trainer_of: Callable[..., Trainer]
) -> None:
    trainer = trainer_of(run_of("rm", "regime=freeze", "regime.layers=1", "training.precision=bf16_amp"), tmp_path, rows_of("rm"))
    before = trainer.model.score.weight.detach().clone()
    trainer.train()
    learning = {name for name, parameter in trainer.model.named_parameters() if parameter.requires_grad}
    assert {name.split(".")[0] if name == "score.weight" else name.split(".")[2] for name in learning} == {"score", "1"}
    assert trainer.model.score.weight.dtype == torch.float32
    assert (trainer.model.score.weight - before).abs().max() > 1e-3


def test_a_text_is_the_prompt_and_one_answer() -> None:
    rows = [{"prompt_ids": [1, 2], "chosen_ids": [3], "rejected_ids": [4, 5]}, {"prompt_ids": [6], "chosen_ids": [7], "rejected_ids": [8]}]
    batch = WholeTexts(pad_token_id=0)(rows)
    assert batch["input_ids"].tolist() == [[1, 2, 3, 0], [6, 7, 0, 0], [1, 2, 4, 5], [6, 8, 0, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 0], [1, 1, 0, 0], [1, 1, 1, 1], [1, 1, 0, 0]]
