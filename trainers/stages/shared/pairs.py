"""Pairs of answers for TRL's ORPO and CPO trainers, which have no collator for rows like ours and tokenise whatever they are given."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from conf.schema import Run
from trainers.data.rows.collator import batch_width, padded
from trainers.data.rows.tokens import MASKED
from trainers.stages.shared.preferences import pad_multiple

Row = dict[str, list[int]]


@dataclass(frozen=True)
class Tokenised:
    """Rows that stay what they are: mapping a tokeniser over them changes nothing."""

    rows: Dataset

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        row: dict[str, Any] = self.rows[index]
        return row

    def map(self, *_: object, **__: object) -> "Tokenised":
        return self


def pairs_collator(run: Run, tokenizer: PreTrainedTokenizerBase) -> Callable[[list[Row]], dict[str, Tensor]]:
    return partial(pairs_batch, padding=tokenizer.pad_token_id, multiple=pad_multiple(run))


def pairs_batch(rows: list[Row], padding: int, multiple: int) -> dict[str, Tensor]:
    """input_ids, attention_mask and labels of the chosen and of the rejected side, each [rows, width]; prompts are not learned."""
    return {**side_batch(rows, "chosen", padding, multiple), **side_batch(rows, "rejected", padding, multiple)}


def side_batch(rows: list[Row], side: str, padding: int, multiple: int) -> dict[str, Tensor]:
    whole = [with_labels(row["prompt_ids"], row[f"{side}_ids"]) for row in rows]
    width = batch_width(whole, multiple)
    return {
        f"{side}_input_ids": padded(whole, "input_ids", width, padding),
        f"{side}_attention_mask": torch.tensor([[1] * len(row["input_ids"]) + [0] * (width - len(row["input_ids"])) for row in whole]),
        f"{side}_labels": padded(whole, "labels", width, MASKED),
    }


def with_labels(prompt: list[int], completion: list[int]) -> Row:
    return {"input_ids": prompt + completion, "labels": [MASKED] * len(prompt) + completion}
