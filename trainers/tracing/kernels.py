"""Lets a trace on fake CPU tensors keep what the kernels of a GPU keep."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import nn
from torch.nn import functional
from transformers import masking_utils


@contextmanager
def masks(masked: bool) -> Iterator[None]:
    """transformers takes fake tensors for an export and builds the mask that a batch without padding does not need."""
    with (
        patch.object(masking_utils, "_ignore_causal_mask_sdpa", lambda *_, **__: not masked),
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
        shared = key.shape[1] < query.shape[1]  # flash attention knows shared heads, and keeps of dropout no more than a seed
        if attn_mask is None and (shared or not dropout_p) and query.shape[-1] == value.shape[-1]:
            return plain(query, key, value, **keywords)
        if torch.is_autocast_enabled("cpu"):  # as sdpa itself does, but not the kernel below
            query, key, value = (tensor.to(torch.bfloat16) for tensor in (query, key, value))
        bias = None
        if attn_mask is not None:
            bias = torch.zeros(attn_mask.shape, dtype=query.dtype).masked_fill_(~attn_mask, float("-inf")).expand(-1, query.shape[1], -1, -1)
        output: torch.Tensor = torch.ops.aten._scaled_dot_product_efficient_attention(query, key, value, bias, True, dropout_p, bias is None)[0]
        # cuDNN's kernel, the first choice on Hopper, answers in the layout of its queries (aten/src/ATen/native/cudnn/MHA.cpp)
        return output.contiguous() if query.is_contiguous() and query.shape == output.shape else output

    def drop(tensor: torch.Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> torch.Tensor:
        return torch.native_dropout(tensor, p, training)[0] if training and p else tensor

    grouped = functional.grouped_mm

    def multiply_groups(rows: torch.Tensor, weight: torch.Tensor, *, offs: torch.Tensor) -> torch.Tensor:
        product: torch.Tensor = GroupedProduct.apply(rows, weight) if weight.dtype == torch.float32 else grouped(rows, weight, offs=offs)
        return product

    with (
        patch.object(functional, "grouped_mm", multiply_groups),
        patch.object(nn.functional, "scaled_dot_product_attention", attend),
        patch.object(nn.functional, "dropout", drop),
        patch.object(nn.functional, "layer_norm", in_floats(nn.functional.layer_norm)),
        patch.object(torch, "pow", in_floats(torch.pow)),
        patch.object(torch, "square", in_floats(torch.square)),  # which is a power: of what relu2 saves, an H200 has as many bytes again
    ):
        yield


def in_floats(function: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """CUDA's autocast casts the arguments of some functions to fp32 that a CPU's does not (aten/src/ATen/autocast_mode.h, AT_FORALL_FP32)."""

    def cast(argument: Any) -> Any:
        return argument.float() if isinstance(argument, torch.Tensor) and torch.is_autocast_enabled("cpu") else argument

    return lambda *arguments, **keywords: function(*map(cast, arguments), **{name: cast(value) for name, value in keywords.items()})


class GroupedProduct(torch.autograd.Function):
    """Of fp32 experts, which autocast leaves as they are (transformers/integrations/moe.py, _grouped_mm); a CPU takes 16 bits alone."""

    @staticmethod
    def forward(ctx: Any, rows: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(rows, weight)
        return rows.new_empty(rows.shape[0], weight.shape[-1])

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        rows, weight = ctx.saved_tensors
        return torch.empty_like(rows), torch.empty_like(weight)
