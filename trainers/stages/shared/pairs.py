"""Pairs of answers laid end to end; and padded for TRL's ORPO and CPO trainers, which have no collator for rows like ours and tokenise whatever they
are given."""

from collections.abc import Callable, Sequence
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
from trainers.kernels.parts import fused
from trainers.stages.shared.preferences import pad_multiple
from trainers.stages.shared.texts import Text, joined_texts

Row = dict[str, list[int]]
REFERENCE = ("ref_chosen_logps", "ref_rejected_logps")  # TRL's names


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


def pairs_collator(run: Run, tokenizer: PreTrainedTokenizerBase, prompts: bool = False) -> Callable[[list[Row]], dict[str, Any]]:
    """`prompts`: those of chosen answers are learned too, where rows are laid end to end."""
    if fused(run):
        return partial(joined_pairs, run=run, prompts=prompts)
    return partial(pairs_batch, padding=tokenizer.pad_token_id, multiple=pad_multiple(run))


def joined_pairs(rows: list[dict[str, Any]], run: Run, prompts: bool = False) -> dict[str, Any]:
    """All chosen texts, then all rejected ones (shared/texts.py), and the log-probabilities of a reference that rows may hold, each [pairs]."""
    texts = [*sides(rows, "chosen"), *sides(rows, "rejected")]
    known = [name for name in REFERENCE if name in rows[0]]
    return {**joined_texts(run, texts, prompts_of=len(rows) if prompts else 0), **{name: torch.tensor([row[name] for row in rows]) for name in known}}


def sides(rows: Sequence[dict[str, Any]], side: str) -> list[Text]:
    return [(row["prompt_ids"], row[f"{side}_ids"]) for row in rows]


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
