"""What the trainer of any stage learns from and reports to."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from datasets import Dataset
from transformers import PreTrainedTokenizerBase, TrainerCallback


@dataclass(frozen=True)
class Material:
    tokenizer: PreTrainedTokenizerBase
    train: Dataset
    evaluation: Dataset | None
    collate: Callable[[list[dict[str, Any]]], dict[str, Any]]  # of stages that learn from whole rows: pt and sft
    callbacks: list[TrainerCallback]

    @property
    def keywords(self) -> dict[str, Any]:
        """As transformers' and TRL's trainers call it."""
        return {
            "train_dataset": self.train,
            "eval_dataset": self.evaluation,
            "processing_class": self.tokenizer,
            "callbacks": self.callbacks,
        }
