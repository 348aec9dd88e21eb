"""Plain linear layers and experts of the values that quantised ones stand for."""

import sys

import bitsandbytes
import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.integrations.bitsandbytes import dequantize_bnb_weight

from trainers.model.experts import expert_modules, give_back_parameters


def with_plain_layers(model: PreTrainedModel, dtype: torch.dtype, device: torch.device | None = None) -> PreTrainedModel:
    """`model` with a frozen nn.Linear of `dtype` in the place of every quantised layer, and a parameter in that of packed experts, on `device`, or
    where the layer was.

    In 4 and 2 bits the values are those that a forward pass of the quantised layer multiplies by. The layers are replaced one after the other, so
    each packed one goes when its copy is there. transformers' own dequantize() knows no HQQ.
    """
    for experts in expert_modules(model).values():
        give_back_parameters(experts, dtype, device)
    for name in [name for name, module in model.named_modules() if is_quantised(module)]:
        module = model.get_submodule(name)
        weight = dequantised_weight(module)
        model.set_submodule(name, linear_of(weight.to(device or weight.device, dtype), module.bias))
        module._parameters.clear()  # a weight of bitsandbytes and its layer hold each other: both would stay until Python looks for such circles
    if getattr(model, "hf_quantizer", None) is not None:
        model.hf_quantizer.remove_quantization_config(model)
    return model


def is_quantised(module: nn.Module) -> bool:
    hqq = sys.modules.get("hqq.core.quantize")  # where it was not imported, no layer is of it
    return isinstance(module, (bitsandbytes.nn.Linear8bitLt, bitsandbytes.nn.Linear4bit, *((hqq.HQQLinear,) if hqq else ())))


def dequantised_weight(module: nn.Module) -> torch.Tensor:
    """[outputs, inputs] of a quantised layer."""
    if isinstance(module, bitsandbytes.nn.Linear8bitLt):
        return dequantize_bnb_weight(module.weight, module.state)
    return dequantize_bnb_weight(module.weight) if isinstance(module, bitsandbytes.nn.Linear4bit) else module.dequantize()


def linear_of(weight: torch.Tensor, bias: torch.Tensor | None) -> nn.Linear:
    outputs, inputs = weight.shape
    layer = nn.Linear(inputs, outputs, bias=bias is not None, device="meta")
    layer.weight = nn.Parameter(weight, requires_grad=False)
    if bias is not None:
        layer.bias = nn.Parameter(bias.detach().to(weight.device, weight.dtype), requires_grad=False)
    return layer
