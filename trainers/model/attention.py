"""Attention that does not cross the samples of a packed row: torch's variable-length kernels, as one more implementation of transformers."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from conf.schema import Run

VARLEN = "varlen"
HEAD_WIDTH = 8  # the kernels need heads of a multiple of it (aten/src/ATen/native/transformers/cuda/flash_attn/flash_api.cpp)

Mask = Callable[[], Tensor | None]


@dataclass(frozen=True)
class Spans:
    """The samples of all rows of a batch, laid one after the other."""

    bounds: Tensor  # int32 [samples + 1]: where each begins, and the end of the last
    longest: int
    window: int | None  # tokens that a token sees, itself included; null: all before it


def implementation(run: Run) -> str | None:
    """The name by which transformers knows the attention of this run."""
    if run.training.kernels == "fused" and run.training.attention != "eager":
        from trainers.kernels.attention import register  # it builds on this module

        return register()
    if run.training.attention == VARLEN:
        AttentionInterface.register(VARLEN, attention_forward)
        AttentionMaskInterface.register(VARLEN, mask_on_demand)
    return run.training.attention


def mask_on_demand(**arguments: Any) -> Mask:
    """Packed batches bring the bounds of their samples and need no mask of length x length. Batches of generation need one."""
    return partial(sdpa_mask, **arguments)


def attention_forward(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Mask | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    cu_seq_lens_q: Tensor | None = None,
    max_length_q: int = 0,
    **others: Any,
) -> tuple[Tensor, None]:
    """As transformers' models call it, with tensors of [rows, heads, length, head]; the collator gives `cu_seq_lens_q` and `max_length_q`."""
    if cu_seq_lens_q is None:
        mask = None if attention_mask is None else attention_mask()
        out: tuple[Tensor, None] = sdpa_attention_forward(module, query, key, value, mask, dropout=dropout, scaling=scaling, **others)
        return out
    if dropout:
        raise ValueError(f"training.attention=varlen does not support dropout, and the model uses {dropout}. Set training.attention=sdpa.")
    rows, _, length, head = query.shape
    flat = [tensor.transpose(1, 2).flatten(0, 1) for tensor in (query, key, value)]
    attend = by_kernel if query.is_cuda else one_by_one
    together = attend(*flat, head**-0.5 if scaling is None else scaling, Spans(cu_seq_lens_q, max_length_q, sliding_window))
    return together.unflatten(0, (rows, length)), None


def by_kernel(query: Tensor, key: Tensor, value: Tensor, scale: float, spans: Spans) -> Tensor:
    """[tokens, heads, head] on a GPU. Autocast does not know the kernel, so the operands are cast as it casts those of other attention."""
    dtype = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else query.dtype
    width = -(-max(query.shape[-1], value.shape[-1]) // HEAD_WIDTH) * HEAD_WIDTH
    operands = [widened(tensor.to(dtype), width) for tensor in (query, key, value)]
    before = -1 if spans.window is None else spans.window - 1
    bounds, longest = spans.bounds, spans.longest
    return kernel()(*operands, bounds, bounds, longest, longest, scale=scale, window_size=(before, 0))[..., : value.shape[-1]]


@cache
def kernel() -> Callable[..., Tensor]:
    """torch's own; with fewer heads for keys than for queries, 2.11 needs no argument and 2.13 needs enable_gqa."""
    from torch.nn.attention.varlen import varlen_attn  # needs a second, and is used only on GPUs

    asks = "enable_gqa" in inspect.signature(varlen_attn).parameters
    return partial(varlen_attn, enable_gqa=True) if asks else varlen_attn


def widened(tensor: Tensor, width: int) -> Tensor:
    """Zeros at the end of a head change neither its scores nor its values."""
    missing = width - tensor.shape[-1]
    return functional.pad(tensor, (0, missing)) if missing else tensor


def one_by_one(query: Tensor, key: Tensor, value: Tensor, scale: float, spans: Spans) -> Tensor:
    """The same on a CPU, for which torch has no such kernel."""
    samples = [slice(begin, end) for begin, end in pairwise(spans.bounds.tolist())]
    return torch.cat([alone(query[each], key[each], value[each], scale, spans.window) for each in samples])


def alone(query: Tensor, key: Tensor, value: Tensor, scale: float, window: int | None) -> Tensor:
    """Causal attention of one sample, [tokens, heads, head]."""
    length = query.shape[0]
    mask = None if window is None or length <= window else torch.ones(length, length, dtype=torch.bool).tril().triu(1 - window)
    heads = [tensor.transpose(0, 1).unsqueeze(0) for tensor in (query, key, value)]
    out = functional.scaled_dot_product_attention(*heads, attn_mask=mask, is_causal=mask is None, scale=scale, enable_gqa=True)
    return out.squeeze(0).transpose(0, 1)
