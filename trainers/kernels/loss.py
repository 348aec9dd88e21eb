"""The head's product and the cross-entropy of the next token, some thousand tokens at a time, with the gradients made in the forward pass.

As liger-kernel's fused linear cross-entropy, whose kernel it calls on a GPU, but without reading the count of learned tokens or the incoming gradient
from the GPU, which stops its queue twice a step. Chunks are as large as pays: on an H200 8,192 tokens of width 2,048 take 22.2, 20.8, 19.5 and
19.3 ms in chunks of 512, 1,024, 2,048 and 4,096 tokens where the head learns, since each adds to its gradient, and at width 4,096 with a frozen head
24 to 25 ms in any of them.

Saved for the backward pass: the gradient of the last hidden states, T x hidden, and that of a head that learns, vocabulary x hidden. While it runs
there are the logits of one chunk, LOGITS elements in the dtype of the computation, twice on a CPU in fp32. Deterministic as the device's products.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput

from conf.kernels import LOGITS
from trainers.data.rows.tokens import MASKED

LARGEST_BLOCK = 2**15  # elements that one program of the kernel holds


def compute_loss_fused(model: PreTrainedModel) -> None:
    """Give `model` a forward pass that answers labels with the loss alone; without labels, as in generation, its own one runs.

    The model must compute its logits by its head alone, and the head must have no bias: trainers/kernels/layers.py lists the families that do.
    """
    whole = model.forward

    def forward(*args: Any, labels: Tensor | None = None, num_items_in_batch: Tensor | int | None = None, **keywords: Any) -> Any:
        if labels is None:
            return whole(*args, **keywords)
        hidden = model.base_model(*args, **keywords).last_hidden_state
        return CausalLMOutput(loss=fused_cross_entropy(model.get_output_embeddings(), hidden, labels, num_items_in_batch))

    model.forward = forward


def fused_cross_entropy(head: nn.Module, hidden: Tensor, labels: Tensor, items: Tensor | int | None) -> Tensor:
    """Summed over the next tokens of `labels` [rows, length] that are learned, over `items`, or their own count where it is not given."""
    targets = functional.pad(labels, (0, 1), value=MASKED)[..., 1:].reshape(-1)
    total: Tensor = SummedCrossEntropy.apply(hidden.reshape(-1, hidden.shape[-1]), head.weight, targets)
    return total / ((targets != MASKED).sum() if items is None else items)


class SummedCrossEntropy(torch.autograd.Function):
    """hidden [tokens, width], weight [vocabulary, width], targets [tokens] to a scalar in fp32."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        device = hidden.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
        states, matrix = hidden.to(dtype), weight.to(dtype)
        learns, head_learns = ctx.needs_input_grad[:2]
        losses = torch.zeros(len(targets), dtype=torch.float32, device=hidden.device)
        of_states = torch.empty_like(states) if learns else None
        of_weight = torch.zeros_like(weight) if head_learns else None
        size = max(1, LOGITS // weight.shape[0])
        for part in (slice(begin, begin + size) for begin in range(0, len(targets), size)):
            logits = states[part] @ matrix.t()
            in_place_cross_entropy(logits, targets[part], losses[part], gradients=learns or head_learns)
            if of_states is not None:
                torch.mm(logits, matrix, out=of_states[part])
            if of_weight is not None:
                add_product(of_weight, logits.t(), states[part])
            del logits  # before those of the next chunk
        ctx.save_for_backward(*(each for each in (of_states, of_weight) if each is not None))
        ctx.dtype = hidden.dtype
        return losses.sum()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        saved = list(ctx.saved_tensors)
        of_states = (saved.pop(0) * gradient).to(ctx.dtype) if ctx.needs_input_grad[0] else None
        of_weight = saved.pop(0).mul_(gradient) if ctx.needs_input_grad[1] else None
        return of_states, of_weight, None


def add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """Add left @ right to `total`; an fp32 total takes the sums of 16-bit factors unrounded on a GPU."""
    if total.dtype == left.dtype:
        total.addmm_(left, right)
    elif left.is_cuda:
        total.add_(torch.mm(left, right, out_dtype=total.dtype))
    else:
        total.add_((left @ right).to(total.dtype))


def in_place_cross_entropy(logits: Tensor, targets: Tensor, losses: Tensor, gradients: bool) -> None:
    """Write each token's loss into `losses` and, if wanted, the gradient of their sum over the logits [tokens, vocabulary]."""
    if logits.is_cuda:
        by_kernel(logits, targets, losses, gradients)
        return
    logs = logits.float().log_softmax(-1)
    losses.copy_(functional.nll_loss(logs, targets, ignore_index=MASKED, reduction="none"))
    if gradients:
        learned = targets != MASKED
        shares = logs.exp_()
        shares[learned, targets[learned]] -= 1
        logits.copy_(shares.mul_(learned.unsqueeze(1)))


def by_kernel(logits: Tensor, targets: Tensor, losses: Tensor, gradients: bool) -> None:
    """liger_kernel/ops/cross_entropy.py 0.8.5; with reduction=sum it uses no counts, which liger's own callers read from the GPU."""
    import triton
    from liger_kernel.ops.cross_entropy import liger_cross_entropy_kernel

    vocabulary = logits.shape[1]
    liger_cross_entropy_kernel[(logits.shape[0],)](
        X_ptr=logits,
        X_stride=logits.stride(0),
        Y_ptr=targets,
        Y_stride=targets.stride(0),
        weight_ptr=None,
        loss_ptr=losses,
        z_loss_ptr=None,
        loss_stride=losses.stride(0),
        token_accuracy_ptr=None,
        token_accuracy_stride=0,
        predicted_tokens_ptr=None,
        predicted_tokens_stride=0,
        n_cols=vocabulary,
        n_non_ignore=1,
        sum_non_ignore_weight=1,
        weight_sum=0.0,
        ignore_index=MASKED,
        lse_square_scale=0.0,
        label_smoothing=0.0,
        reduction="sum",
        softcap=None,
        RETURN_Z_LOSS=False,
        RETURN_TOKEN_ACCURACY=False,
        RETURN_PREDICTED_TOKENS=False,
        BLOCK_SIZE=min(LARGEST_BLOCK, triton.next_power_of_2(vocabulary)),
        HAS_WEIGHT=False,
        HAS_SOFTCAPPING=False,
        HAS_GRADIENTS=gradients,
        num_warps=32,
    )
