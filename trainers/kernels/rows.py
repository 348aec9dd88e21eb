"""Rows without padding: those of a micro-batch laid end to end, with the bounds of their samples, so that attention does not cross them.

A step keeps its samples, which packing changes. The loss is the same sum over the same tokens: the first token of a sample is predicted by none, so
its label is masked here, as the shift of labels leaves it out of a padded row.

On a GPU the row is filled up by one more sample that is not learned, so that few numbers of tokens come up. cuBLAS looks for a kernel for every new
one: on an H200 a product then takes the host 45 microseconds instead of some 12, which a 1B model has 700 of in a step. Filled are multiples of 128,
and from 4,096 tokens on of a sixteenth of the power of two below: 2 % of the tokens in the mean. No row gets longer than the longest there can be.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy
import torch
from transformers import Trainer

from conf.kernels import FILLED
from conf.schema import Run
from trainers.data.rows import collator
from trainers.data.rows.collator import Batch, Row
from trainers.data.rows.tokens import MASKED
from trainers.kernels.attention import unmasked
from trainers.model.attention import VARLEN

STEPS = 16  # numbers of tokens between a power of two and the next


def pad_evaluation(trainer: Trainer, collate: Callable[[list[Row]], Batch]) -> None:
    """In an evaluation rows stay rows, as `collate` pads them. Its mean over tokens would be the same of joined ones, which were not tried there."""
    joined, loader = trainer.data_collator, trainer.get_eval_dataloader

    def padded_loader(*arguments: Any, **keywords: Any) -> Any:
        trainer.data_collator = collate
        try:
            return loader(*arguments, **keywords)
        finally:
            trainer.data_collator = joined

    trainer.get_eval_dataloader = padded_loader


def batch_of(run: Run, padding: int, multiple: int) -> "partial[Batch]":
    """What makes a batch of the rows of this run: packed, laid end to end, or, where attention=sdpa was chosen, padded."""
    if run.training.attention == VARLEN and not run.data.packing:
        return partial(joined_batch, full=run.data.cutoff, multiple=FILLED if run.node.gpus else 1)
    if run.training.attention == VARLEN:
        return partial(packed_batch, padding=padding, multiple=multiple)
    return partial(collator.packed_batch if run.data.packing else marked_batch, padding=padding, multiple=multiple)


def joined_batch(rows: list[Row], full: int, multiple: int = 1) -> Batch:
    """input_ids, labels and position_ids [1, tokens], bounds int32 [rows + 1]; rows that are all `full` tokens long stay a matrix [rows, full]."""
    if {len(row["input_ids"]) for row in rows} == {full}:
        return {"input_ids": tensor([row["input_ids"] for row in rows]), "labels": tensor([row["labels"] for row in rows]), **plain_row()}
    real = sum(len(row["input_ids"]) for row in rows)
    rest = filled(real, multiple, len(rows) * full) - real
    if rest:
        rows = [*rows, {"input_ids": [0] * rest, "labels": [MASKED] * rest}]
    lengths = [len(row["input_ids"]) for row in rows]
    bounds = numpy.cumsum([0, *lengths], dtype=numpy.int32)
    labels = end_to_end([row["labels"] for row in rows])
    labels[bounds[:-1]] = MASKED
    return {
        "input_ids": torch.from_numpy(end_to_end([row["input_ids"] for row in rows])).unsqueeze(0),
        "labels": torch.from_numpy(labels).unsqueeze(0),
        "position_ids": torch.from_numpy(numpy.arange(bounds[-1]) - numpy.repeat(bounds[:-1], lengths)).unsqueeze(0),
        "cu_seq_lens_q": torch.from_numpy(bounds),
        "max_length_q": max(lengths),
        "real_tokens": real,  # for trainers/callbacks/progress.py; the model hands it on to its attention, which does not look
        **plain_row(),
    }


def end_to_end(rows: list[list[int]]) -> "numpy.ndarray[Any, numpy.dtype[numpy.int64]]":
    """By numpy, in a tenth of the time of Python's own lists: where no worker makes batches, a small model's step waits for this."""
    return numpy.concatenate([numpy.asarray(row, dtype=numpy.int64) for row in rows])


def filled(real: int, multiple: int, most: int) -> int:
    """Tokens of a row with `real` ones; 1 as `multiple`: these."""
    step = max(multiple, (1 << (real.bit_length() - 1)) // STEPS) if multiple > 1 else 1
    return max(real, min(real + -real % step, most + -most % multiple))


def packed_batch(rows: list[Row], padding: int, multiple: int) -> Batch:
    """As the collator makes it for variable-length attention."""
    return {**collator.bounded_batch(rows, padding, multiple), **plain_row()}


def marked_batch(rows: list[Row], padding: int, multiple: int) -> Batch:
    """As the collator pads it; a batch that needs no mask says so."""
    return {**plain_row(), **collator.padded_batch(rows, padding, multiple)}


def plain_row() -> Batch:
    return {"attention_mask": unmasked(), "use_cache": False}


def tensor(values: list[list[int]]) -> torch.Tensor:
    return torch.from_numpy(numpy.asarray(values, dtype=numpy.int64))
