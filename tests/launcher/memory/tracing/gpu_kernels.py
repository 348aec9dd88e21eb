"""Lets a trace on fake CPU tensors keep what the kernels of a GPU keep."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import nn
from transformers import masking_utils

from launcher.memory.activations import Batch


@contextmanager
def masks(batch: Batch) -> Iterator[None]:
    """transformers takes fake tensors for an export and builds the mask that a batch without padding does not need."""
    with (
        patch.object(masking_utils, "_ignore_causal_mask_sdpa", lambda *_, **__: not batch.masked),
        patch.object(masking_utils, "find_packed_sequence_indices", lambda *_, **__: None),
    ):
        yield


def autocast_as_on_a_gpu() -> AbstractContextManager[Any]:
    """PEFT asks without naming a device, which means a GPU, whether autocast is on."""
    asked = torch.is_autocast_enabled
    return patch.object(torch, "is_autocast_enabled", lambda device="cpu": asked(device))


@contextmanager
def kernels_as_on_a_gpu() -> Iterator[None]:
    """With a mask, with dropout, or with values narrower than keys a CPU materialises the scores; CUDA has the memory-efficient kernel. Dropout
    keeps a mask of one byte there (aten/src/ATen/native/Dropout.cpp, is_fused_kernel_acceptable)."""
    plain = nn.functional.scaled_dot_product_attention

    def attend(
        query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attn_mask: torch.Tensor | None = None, dropout_p: float = 0.0, **keywords: Any
    ) -> torch.Tensor:
        if attn_mask is None and not dropout_p and query.shape[-1] == value.shape[-1]:
            return plain(query, key, value, **keywords)
        if torch.is_autocast_enabled("cpu"):  # as sdpa itself does, but not the kernel below
            query, key, value = (tensor.to(torch.bfloat16) for tensor in (query, key, value))
        bias = None
        if attn_mask is not None:
            bias = torch.zeros(attn_mask.shape, dtype=query.dtype).masked_fill_(~attn_mask, float("-inf")).expand(-1, query.shape[1], -1, -1)
        output: torch.Tensor = torch.ops.aten._scaled_dot_product_efficient_attention(query, key, value, bias, True, dropout_p, bias is None)[0]
        return output

    def drop(tensor: torch.Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> torch.Tensor:
        return torch.native_dropout(tensor, p, training)[0] if training and p else tensor

    with patch.object(nn.functional, "scaled_dot_product_attention", attend), patch.object(nn.functional, "dropout", drop):
        yield
