"""RMSNorms whose weights do not learn, by torch's own kernel.

One call of the host for each pass, where liger's kernel takes it a function of Python, three views, two new tensors and a launch by Triton: a 1B
model has 33 norms in a forward pass and as many back, and on short rows its step waits for the host. Both keep the input and one fp32 number a token.
liger's writes the gradient of the input over that of the output; torch's makes a tensor of its own (launcher/memory/step/fused_layer.py). Rounding
differs from liger's once: the product with the weight is made in fp32 too. Each token by itself, in one order: deterministic.

A weight that learns keeps liger's kernel, and so do norms whose weight is added to 1 and norms of single heads.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from conf.kernels import OFFSET_NORMS


class FrozenNorm:
    """Stands for the forward method of one norm, which it keeps for what it does not cover."""

    def __init__(self, norm: nn.Module) -> None:
        self.norm = norm
        self.shape = tuple(norm.weight.shape)
        self.epsilon = float(norm.variance_epsilon)
        self.plain: Callable[[Tensor], Tensor] = norm.forward

    def __call__(self, hidden: Tensor) -> Tensor:
        weight: Tensor = self.norm.weight
        if weight.requires_grad or weight.dtype != hidden.dtype:
            return self.plain(hidden)
        return torch.rms_norm(hidden, self.shape, weight, self.epsilon)


def spare_frozen_norms(model: PreTrainedModel) -> int:
    """Give the norms of the residual stream torch's kernel, where their weights do not learn; how many there are."""
    if model.config.model_type in OFFSET_NORMS:
        return 0
    width = (model.config.hidden_size,)
    norms = [module for module in model.modules() if type(module).__name__.endswith("RMSNorm") and tuple(module.weight.shape) == width]
    frozen = [norm for norm in norms if not norm.weight.requires_grad]
    for norm in frozen:
        norm.forward = FrozenNorm(norm)
    return len(frozen)
