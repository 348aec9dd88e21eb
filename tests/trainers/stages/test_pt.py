"""Pre-training that goes on: every token is learned, and the answers of the text get likelier."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import Trainer

from conf.schema import Run

TEXT = [97, 98, 99, 100, 101, 102]


def test_the_loss_is_the_mean_over_every_token_but_the_first(tmp_path: Path, run_of: Callable[..., Run], trainer_of: Callable[..., Trainer]) -> None:
    rows = Dataset.from_list([{"input_ids": TEXT, "labels": [-100, *TEXT[1:]]}])
    trainer = trainer_of(run_of("pt", "regime=full", "training.micro_batch=1"), tmp_path, rows, rows)
    with torch.no_grad():
        logps = trainer.model(input_ids=torch.tensor([TEXT])).logits[0].log_softmax(-1)
    by_hand = -sum(logps[position - 1, TEXT[position]].item() for position in range(1, 6)) / 5
    assert trainer.evaluate()["eval_loss"] == pytest.approx(by_hand, rel=1e-5)


def test_texts_get_likelier(
    tmp_path: Path,
    run_of: Callable[..., Run],
    rows_of: Callable[..., Any],
    trainer_of: Callable[..., Trainer],
    logged: Callable[[Trainer, str], list[float]],
) -> None:
    trainer = trainer_of(run_of("pt", "regime=full", "training.max_steps=20"), tmp_path, rows_of("pt"))
    trainer.train()
    losses = logged(trainer, "loss")
    assert sum(losses[-4:]) < 0.8 * sum(losses[:4])
