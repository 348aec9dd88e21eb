"""Cross-entropy over a few tokens at a time, on any device: the logits of a whole batch never exist."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput

from conf.constants import LOSS_CHUNK

IGNORED = -100


def compute_loss_in_chunks(model: PreTrainedModel, longest: int | None = None) -> None:
    """Give `model` a forward pass that answers labels with the loss alone; without labels, as in generation, its own one runs.

    `longest`: tokens of the longest sample, where all ranks must call the head equally often, as ZeRO-3 does that gathers it at every call.
    The model must compute its logits by its head alone: launcher/rules/pairs.py lists the families that do.
    """
    whole = model.forward

    def forward(*args: Any, labels: Tensor | None = None, num_items_in_batch: Tensor | int | None = None, **keywords: Any) -> Any:
        if labels is None:
            return whole(*args, **keywords)
        hidden = model.base_model(*args, **keywords).last_hidden_state
        parts = None if longest is None else math.ceil(labels.shape[0] * longest / LOSS_CHUNK)
        return CausalLMOutput(loss=chunked_cross_entropy(model.get_output_embeddings(), hidden, labels, num_items_in_batch, parts))

    model.forward = forward


def chunked_cross_entropy(head: nn.Module, hidden: Tensor, labels: Tensor, items: Tensor | int | None, parts: int | None = None) -> Tensor:
    """Summed over the next tokens of `labels` (batch, length) that are learned, over `items`, or their own count where it is not given.

    In chunks of LOSS_CHUNK tokens, or in so many `parts`, of which some are empty where there are fewer tokens.
    """
    targets = functional.pad(labels, (0, 1), value=IGNORED)[..., 1:].reshape(-1).to(hidden.device)
    total = hidden.new_zeros((), dtype=torch.float32)
    for states, tokens in zip(chunks(hidden.reshape(-1, hidden.shape[-1]), parts), chunks(targets, parts), strict=True):
        total = total + checkpoint(summed_cross_entropy, head, states, tokens, use_reentrant=False)
    return total / ((targets != IGNORED).sum() if items is None else items)


def chunks(rows: Tensor, parts: int | None) -> tuple[Tensor, ...]:
    return rows.split(LOSS_CHUNK) if parts is None else rows.tensor_split(parts)


def summed_cross_entropy(head: nn.Module, hidden: Tensor, targets: Tensor) -> Tensor:
    """Of one chunk; its logits are computed again for the backward pass."""
    return functional.cross_entropy(head(hidden).float(), targets, ignore_index=IGNORED, reduction="sum")
