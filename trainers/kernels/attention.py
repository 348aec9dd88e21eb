"""Attention by a measured table: one implementation for transformers that takes the fastest kernel for the rows at hand.

TFLOP/s forward and backward on an H200 with torch 2.11, 32 heads of 64 and of 128, 8 for keys (benchmarks/speed/kernels_alone.py, 2026-11-29):

| rows | kernel | 8 x 2048 | 4 x 4096 | lengths as in practice |
|---|---|---|---|---|
| of full length, one sample each | cuDNN's, through torch's scaled_dot_product_attention | 318, 418 | 381, 500 | |
| | torch's flash attention, which it takes by itself | 199, 227 | 235, 269 | |
| laid end to end, or packed | torch's variable-length flash attention | 206, 243 | 245, 272 | 118, 150 |
| | cuDNN's for rows of any length (aten::_cudnn_attention_forward) | | | 1, 2 |
| padded (of other code's evaluation and generation) | scaled_dot_product_attention with transformers' mask | | | |

cuDNN builds a plan for every new shape, so it is left to rows of data.cutoff tokens (trainers/kernels/rows.py says which those are); it is taken on
GPUs of compute capability 9 or more, where it was measured, in 16 bits, with heads of up to 128 and without a window; elsewhere torch chooses.

Saved for the backward pass: query, key, value and output as they are, and one fp32 number a token and query head. cuDNN's and flash attention's
backward passes add in an order that can change from run to run; with training.deterministic=true torch leaves cuDNN's out, and flash attention adds
in one order.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import AttentionInterface, AttentionMaskInterface

from trainers.model.attention import HEAD_WIDTH, Mask, Spans, by_kernel, mask_on_demand, one_by_one
from trainers.model.attention import attention_forward as bounded_or_masked

MEASURED = "measured"
# As a batch's attention_mask: nothing is masked but the future. transformers hands masks of four dimensions on as they are; for None it would look
# through all positions on the GPU whether samples share a row, and wait for the answer.
UNMASKED = (1, 1, 1, 1)
CUDNN_WIDTH = 128  # the widest head whose backward pass cuDNN has on every GPU from Hopper on
HOPPER = 9
BEST_FIRST = (SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH)


def register() -> str:
    """The name by which transformers knows this attention."""
    AttentionInterface.register(MEASURED, attention_forward)
    AttentionMaskInterface.register(MEASURED, mask_on_demand)
    return MEASURED


def unmasked() -> Tensor:
    return torch.zeros(UNMASKED, dtype=torch.bool)


def attention_forward(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Mask | Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    cu_seq_lens_q: Tensor | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """As transformers' models call it, with tensors of [rows, heads, length, head]; to [rows, length, heads, head]."""
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    if isinstance(attention_mask, Tensor) and attention_mask.shape == UNMASKED and cu_seq_lens_q is None:
        return whole_rows(query, key, value, scale, dropout, sliding_window), None
    if cu_seq_lens_q is not None and query.is_cuda and not dropout and plain_heads(query, value):
        return joined_rows(query, key, value, scale, Spans(cu_seq_lens_q, others["max_length_q"], sliding_window)), None
    mask = None if isinstance(attention_mask, Tensor) else attention_mask
    keywords = {"dropout": dropout, "scaling": scaling, "sliding_window": sliding_window, "cu_seq_lens_q": cu_seq_lens_q, **others}
    return bounded_or_masked(module, query, key, value, mask, **keywords)


def whole_rows(query: Tensor, key: Tensor, value: Tensor, scale: float, dropout: float, window: int | None) -> Tensor:
    """Causal attention of rows of one sample each, all of one length."""
    rows, _, length, _ = query.shape
    if window is not None and window < length:
        bounds = torch.arange(rows + 1, dtype=torch.int32, device=query.device) * length
        flat = [tensor.transpose(1, 2).flatten(0, 1) for tensor in (query, key, value)]
        attend = by_kernel if query.is_cuda else one_by_one
        return attend(*flat, scale, Spans(bounds, length, window)).unflatten(0, (rows, length))
    with sdpa_kernel(list(BEST_FIRST if suits_cudnn(query, value) else BEST_FIRST[1:]), set_priority=True):
        out = functional.scaled_dot_product_attention(query, key, value, dropout_p=dropout, is_causal=True, scale=scale, enable_gqa=True)
    return out.transpose(1, 2)


def plain_heads(query: Tensor, value: Tensor) -> bool:
    """Whether the variable-length kernel takes heads and numbers as they are."""
    return query.shape[-1] == value.shape[-1] and query.shape[-1] % HEAD_WIDTH == 0 and query.dtype in (torch.bfloat16, torch.float16)


def joined_rows(query: Tensor, key: Tensor, value: Tensor, scale: float, spans: Spans) -> Tensor:
    """Causal attention inside of each sample. The kernel behind torch.nn.attention.varlen, whose Python around it costs a small model's step."""
    rows, _, length, _ = query.shape
    flat = [tensor.transpose(1, 2).flatten(0, 1) for tensor in (query, key, value)]
    bounds, longest = spans.bounds, spans.longest
    window = {} if spans.window is None else {"window_size_left": spans.window - 1, "window_size_right": 0}
    out: Tensor = torch.ops.aten._flash_attention_forward(*flat, bounds, bounds, longest, longest, 0.0, True, False, scale=scale, **window)[0]
    return out.unflatten(0, (rows, length))


def suits_cudnn(query: Tensor, value: Tensor) -> bool:
    if not query.is_cuda or torch.cuda.get_device_capability(query.device)[0] < HOPPER:
        return False
    width = max(query.shape[-1], value.shape[-1])
    sixteen_bits = query.dtype in (torch.bfloat16, torch.float16) or torch.is_autocast_enabled("cuda")
    return sixteen_bits and width <= CUDNN_WIDTH and width % 8 == 0
