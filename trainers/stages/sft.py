"""Supervised fine-tuning: next-token loss on the answers, through transformers' own Trainer.

TRL's SFTTrainer would add entropy and accuracy over whole logits to every step; the data comes tokenised and masked already.
"""

from collections.abc import Callable
from typing import Any

from datasets import Dataset
from transformers import AutoModelForCausalLM, PreTrainedTokenizerBase, Trainer, TrainerCallback, TrainingArguments

from conf.run_dir import RunDir
from conf.schema import Run
from trainers.arguments import training_arguments
from trainers.loss import compute_loss_in_chunks
from trainers.regimes import PreparedModel, with_adapter

MODEL_CLASS = AutoModelForCausalLM


def build_arguments(run: Run, run_dir: RunDir, has_evaluation: bool) -> TrainingArguments:
    return TrainingArguments(**training_arguments(run, run_dir, has_evaluation))


def build_trainer(
    run: Run,
    arguments: TrainingArguments,
    prepared: PreparedModel,
    tokenizer: PreTrainedTokenizerBase,
    datasets: tuple[Dataset, Dataset | None],
    collate: Callable[[list[dict[str, Any]]], dict[str, Any]],
    callbacks: list[TrainerCallback],
) -> Trainer:
    train, evaluation = datasets
    if run.training.loss == "chunked":
        compute_loss_in_chunks(prepared.model)
    return Trainer(
        model=with_adapter(prepared, run),
        args=arguments,
        train_dataset=train,
        eval_dataset=evaluation,
        data_collator=collate,
        processing_class=tokenizer,
        callbacks=callbacks,
    )
