"""What the traced steps of these tests have beside trainers/tracing: liger's loss, and the buffers of CUDA's sums."""

from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput

from launcher.memory.step.column_sums import column_sum_bytes


def fuse_loss(model: PreTrainedModel) -> None:
    """liger-kernel's kernels run on a GPU alone; what its linear cross-entropy makes stands below."""

    def forward(*args: Any, labels: torch.Tensor, **keywords: Any) -> CausalLMOutput:
        states = model.base_model(*args, **keywords).last_hidden_state
        return CausalLMOutput(loss=FusedLoss.apply(states.view(-1, states.shape[-1]), model.get_output_embeddings().weight))

    model.forward = forward


class FusedLoss(torch.autograd.Function):
    """liger_kernel/ops/fused_linear_cross_entropy.py 0.8.5: both gradients are made in the forward pass, chunk by chunk."""

    @staticmethod
    def forward(ctx: Any, states: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        (tokens, hidden), vocabulary = states.shape, weight.shape[0]
        size = min(tokens, 1 << (-(-tokens // -(-vocabulary // hidden)) - 1).bit_length())
        gradient = torch.zeros_like(states)
        of_weight = torch.zeros_like(weight) if weight.requires_grad else None
        same = states.dtype == weight.dtype == (torch.bfloat16 if torch.is_autocast_enabled("cpu") else weight.dtype)
        room = torch.empty(size, vocabulary, dtype=states.dtype) if same else None
        for start in range(0, tokens, size):
            rows = states[start : start + size]
            logits = rows @ weight.t() if room is None else room[: rows.shape[0]]
            if room is None:
                gradient[start : start + size] = logits @ weight
            if of_weight is not None:
                rows.to(logits.dtype)
            del logits
        ctx.save_for_backward(gradient, of_weight)
        return torch.zeros(tokens).sum()

    @staticmethod
    def backward(ctx: Any, *_: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        return ctx.saved_tensors


def column_sum_buffer(values: torch.Tensor, dims: list[int] | None, *_: Any) -> int:
    """Of CUDA's sum over all dimensions but the last."""
    last = values.dim() - 1
    if dims is None or not values.numel() or sorted(dim % values.dim() for dim in dims) != [*range(last)]:
        return 0
    return column_sum_bytes(values.numel() // values.shape[last], values.shape[last])
