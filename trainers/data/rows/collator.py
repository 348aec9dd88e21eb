"""Rows to one batch of tensors: padded right to the longest, masked only where something is padded."""

from collections.abc import Callable
from functools import partial
from itertools import accumulate, pairwise

import torch
from transformers import PreTrainedTokenizerBase

from conf.schema import Run
from trainers.data.rows.tokens import MASKED

Row = dict[str, list[int]]
Batch = dict[str, torch.Tensor | bool | int]
TENSOR_CORE_WIDTH = 8  # half-precision matrix products are fastest in multiples of 8 (NVIDIA's matrix multiplication guide)


def build_collator(run: Run, tokenizer: PreTrainedTokenizerBase) -> Callable[[list[Row]], Batch]:
    multiple = 1 if run.training.precision == "fp32" else TENSOR_CORE_WIDTH
    padding = tokenizer.pad_token_id
    if run.training.kernels == "fused" and run.training.attention != "eager":
        from trainers.kernels.rows import batch_of  # it builds on this module

        return batch_of(run, padding, multiple)
    if not run.data.packing:
        return partial(padded_batch, padding=padding, multiple=multiple)
    return partial(bounded_batch if run.training.attention == "varlen" else packed_batch, padding=padding, multiple=multiple)


def padded_batch(rows: list[Row], padding: int, multiple: int) -> Batch:
    """input_ids and labels [rows, width]; attention_mask only if a row is padded, so that attention keeps its causal kernel otherwise."""
    width = batch_width(rows, multiple)
    batch: Batch = {"input_ids": padded(rows, "input_ids", width, padding), "labels": padded(rows, "labels", width, MASKED)}
    if any(len(row["input_ids"]) < width for row in rows):
        batch["attention_mask"] = torch.tensor([[1] * len(row["input_ids"]) + [0] * (width - len(row["input_ids"])) for row in rows])
    return batch


def packed_batch(rows: list[Row], padding: int, multiple: int) -> Batch:
    """input_ids, labels and position_ids [rows, width].

    transformers derives from positions that restart that attention must not cross samples (masking_utils.find_packed_sequence_indices),
    for every attention kernel and for sliding windows, but only without an attention mask and without a cache.
    Padding has position 0: each token of it stands alone.
    """
    width = batch_width(rows, multiple)
    return {
        "input_ids": padded(rows, "input_ids", width, padding),
        "labels": padded(rows, "labels", width, MASKED),
        "position_ids": padded(rows, "position_ids", width, 0),
        "use_cache": False,
    }


def bounded_batch(rows: list[Row], padding: int, multiple: int) -> Batch:
    """A packed batch with the bounds of its samples, under the names by which transformers hands them on to every layer's attention.

    They are computed here, on the CPU. To compute the longest sample from positions on a GPU, the CPU would have to wait for the GPU's queue.
    """
    width = batch_width(rows, multiple)
    lengths = [length for row in rows for length in sample_lengths(row["position_ids"], width)]
    bounds = torch.tensor([0, *accumulate(lengths)], dtype=torch.int32)
    return {**packed_batch(rows, padding, multiple), "cu_seq_lens_q": bounds, "max_length_q": max(lengths)}


def sample_lengths(positions: list[int], width: int) -> list[int]:
    """Of the samples of one row, where positions do not go on; its padding counts as one more."""
    starts = [place for place, position in enumerate(positions) if place == 0 or position != positions[place - 1] + 1]
    padding = [len(positions)] if len(positions) < width else []
    return [end - start for start, end in pairwise([*starts, *padding, width])]


def batch_width(rows: list[Row], multiple: int) -> int:
    """The longest row; rounded up only where padding is needed anyway."""
    lengths = {len(row["input_ids"]) for row in rows}
    return max(lengths) if len(lengths) == 1 else -(-max(lengths) // multiple) * multiple


def padded(rows: list[Row], column: str, width: int, value: int) -> torch.Tensor:
    return torch.tensor([row[column] + [value] * (width - len(row[column])) for row in rows])
