"""Runs of a tiny model and rows for every stage, put together as trainers/run.py does it."""

import importlib
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import Trainer, TrainerCallback

from conf.run_dir import RunDir
from conf.schema import Run
from tests.described import described
from trainers.data import build_collator
from trainers.model.tokenizer import load_tokenizer
from trainers.regimes import prepare_model
from trainers.stages.shared.material import Material

TINY = (
    *("model=demo", "data=demo", "model.architecture.hidden_size=32", "model.architecture.intermediate_size=64", "model.architecture.vocab_size=264"),
    # sharding=ddp is no wrapper on one rank
    *("node=cpu", "cluster.ranks_per_node=1", "sharding=ddp", "training.precision=fp32", "training.gradient_checkpointing=false"),
    *("training.micro_batch=4", "training.max_steps=2", "optim.lr=0.005", "optim.warmup=0", "evaluation.interval=0", "checkpoint.interval=0"),
)
END = 259  # <|im_end|> of the built-in tokenizer
BETTER, WORSE = [71, 72, 73], [81, 82, 83]  # tokens of chosen and of rejected answers


def tiny_run(stage: str, *overrides: str) -> Run:
    return described(*TINY, f"stage={stage}", *overrides)


def stage_trainer(run: Run, folder: Path, train: Dataset, evaluation: Dataset | None = None, callbacks: tuple[TrainerCallback, ...] = ()) -> Trainer:
    stage, run_dir, tokenizer = importlib.import_module(f"trainers.stages.{run.stage.name}"), RunDir(folder), load_tokenizer(run)
    arguments = stage.build_arguments(run, run_dir, evaluation is not None)
    prepared = prepare_model(run, stage.MODEL_CLASS, run_dir.base)
    trainer: Trainer = stage.build_trainer(
        run, arguments, prepared, Material(tokenizer, train, evaluation, build_collator(run, tokenizer), [*callbacks])
    )
    return trainer


def rows_for(stage: str, count: int = 16) -> Dataset:
    """Prompts and answers of several lengths; good answers are made of other tokens than bad ones, in no order that a label could follow."""
    draw = random.Random(0)
    rows: list[dict[str, Any]] = []
    for _ in range(count):
        prompt = [draw.randrange(97, 123) for _ in range(draw.randrange(3, 8))]
        chosen, rejected = ([draw.choice(side) for _ in range(draw.randrange(1, 4))] + [END] for side in (BETTER, WORSE))
        good = draw.random() < 0.5
        whole = prompt + chosen
        rows.append(
            {
                "pt": {"input_ids": whole, "labels": [-100, *whole[1:]]},
                "sft": {"input_ids": whole, "labels": [-100] * len(prompt) + chosen},
                "kto": {"prompt_ids": prompt, "completion_ids": chosen if good else rejected, "label": good},
            }.get(stage, {"prompt_ids": prompt, "chosen_ids": chosen, "rejected_ids": rejected})
        )
    return Dataset.from_list(rows)


def logged_values(trainer: Trainer, key: str) -> list[float]:
    return [entry[key] for entry in trainer.state.log_history if key in entry]


def answer_logps(model: torch.nn.Module, prompt: list[int], answer: list[int]) -> torch.Tensor:
    """Log-probability of each token of the answer, one row alone and unpadded."""
    tokens = torch.tensor([prompt + answer])
    with torch.no_grad():
        logps = model(input_ids=tokens).logits[0].float().log_softmax(-1)
    return torch.stack([logps[position - 1, tokens[0, position]] for position in range(len(prompt), tokens.shape[1])])


@pytest.fixture(scope="session")
def run_of() -> Callable[..., Run]:
    return tiny_run


@pytest.fixture(scope="session")
def trainer_of() -> Callable[..., Trainer]:
    return stage_trainer


@pytest.fixture(scope="session")
def rows_of() -> Callable[..., Dataset]:
    return rows_for


@pytest.fixture(scope="session")
def logged() -> Callable[[Trainer, str], list[float]]:
    return logged_values


@pytest.fixture(scope="session")
def logps_of() -> Callable[[torch.nn.Module, list[int], list[int]], torch.Tensor]:
    return answer_logps
