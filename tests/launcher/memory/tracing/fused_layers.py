"""What training.kernels=fused makes on a GPU, on CPU tensors: liger's kernels, which a CPU lacks, with the tensors that they keep and make.

They answer zeros: what real memory happened to hold can be numbers with which a CPU is slow. The adapters' functions and the loss are the trainers'
own; only what they do otherwise on a CPU is replaced.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

import trainers.kernels.attention
import trainers.kernels.bases
import trainers.kernels.fp8
import trainers.kernels.lora
import trainers.kernels.loss

PROCESSORS = 132  # of an H100 or H200: the backward kernel of a norm has one program for each
IN_PLACE = {"gemma3_text": False}  # liger_kernel/transformers/monkey_patch.py 0.8.5, _patch_rms_norm_module; others have the default, True


class Norm(torch.autograd.Function):
    """liger_kernel/ops/rms_norm.py, LigerRMSNormFunction."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor, in_place: bool) -> Tensor:
        rows = states.contiguous().view(-1, states.shape[-1])
        output, factors = torch.zeros_like(rows), torch.zeros(len(rows), dtype=torch.float32)
        ctx.save_for_backward(rows, weight, factors)
        ctx.in_place = in_place
        return output.view(states.shape)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor | None, None]:
        gradient, weight = gradient.contiguous(), ctx.saved_tensors[1]
        parts = torch.zeros(PROCESSORS, gradient.shape[-1], dtype=torch.float32) if ctx.needs_input_grad[1] else None
        of_states = gradient if ctx.in_place else torch.zeros_like(gradient)
        return of_states, None if parts is None else parts.sum(dim=0).to(weight.dtype), None


class Rotary(torch.autograd.Function):
    """liger_kernel/ops/rope.py, LigerRopeFunction."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(cos.contiguous(), sin.contiguous())
        return as_it_lies(query), as_it_lies(key)

    @staticmethod
    def backward(ctx: Any, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor, None, None]:
        return as_it_lies(query), as_it_lies(key), None, None


class Gated(torch.autograd.Function):
    """liger_kernel/ops/swiglu.py, LigerSiLUMulFunction, and ops/geglu.py: the backward pass writes both gradients over what was saved."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        gate, up = gate.contiguous(), up.contiguous()
        ctx.save_for_backward(gate, up)
        return torch.zeros_like(gate)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        gradient.contiguous()
        gate, up = ctx.saved_tensors
        return gate.view(gate.shape), up.view(up.shape)


class Attention(torch.autograd.Function):
    """cuDNN's and flash attention's: ATen/native/cudnn/MHA.cpp, flash_attn/flash_api.cpp. What their backward passes need beside is CUDA's alone."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        output = torch.zeros_like(query)
        sums = torch.zeros(query.shape[:3], dtype=torch.float32)
        ctx.save_for_backward(query, key, value, output, sums)
        return output.transpose(1, 2)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        query, key, value, *_ = ctx.saved_tensors
        return torch.zeros_like(query), torch.zeros_like(key), torch.zeros_like(value)


def as_it_lies(heads: Tensor) -> Tensor:
    return heads.transpose(1, 2).contiguous().transpose(1, 2)


def attend(query: Tensor, key: Tensor, value: Tensor, *_: Any) -> Tensor:
    output: Tensor = Attention.apply(query, key, value)
    return output


def rotate(query: Tensor, key: Tensor, cos: Tensor, sin: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
    turned: tuple[Tensor, Tensor] = Rotary.apply(query, key, cos, sin)
    return turned


def normalise(norm: nn.Module, in_place: bool, states: Tensor) -> Tensor:
    output: Tensor = Norm.apply(states, norm.weight, in_place)
    return output


def gated_mlp(mlp: nn.Module, states: Tensor) -> Tensor:
    if not hasattr(mlp, "gate_up_proj"):
        return closed(mlp, Gated.apply(mlp.gate_proj(states), mlp.up_proj(states)))
    gate, up = mlp.gate_up_proj(states).chunk(2, dim=-1)
    return closed(mlp, Gated.apply(gate, up))


def closed(mlp: nn.Module, product: Tensor) -> Tensor:
    output: Tensor = mlp.down_proj(product)
    return output


def fuse_layers(model: PreTrainedModel, adapted: bool = False) -> None:
    """In the place of trainers/kernels/layers.py, which needs liger-kernel and a GPU. `adapted`: and of norms.py, by which the norms of a model under
    an adapter are torch's own, whose gradient of the input is a tensor of its own."""
    in_place = IN_PLACE.get(model.config.model_type, True)
    for module in model.modules():
        if type(module).__name__.endswith("RMSNorm"):
            own = adapted and len(module.weight) == model.config.hidden_size
            module.forward = partial(normalise, module, in_place and not own)
        elif type(module).__name__.endswith("MLP"):
            module.forward = partial(gated_mlp, module)


@contextmanager
def fused_as_on_a_gpu(model: nn.Module) -> Iterator[None]:
    """What differs there in the trainers' own functions, while a step of `model` is traced."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    with (
        patch.object(sys.modules[type(base).__module__], "apply_rotary_pos_emb", rotate),
        patch.object(trainers.kernels.attention, "whole_rows", attend),
        patch.object(trainers.kernels.bases.FourBitBase, "matrix", four_bit_matrix),
        patch.object(trainers.kernels.fp8, "quantise_rows", quantise_rows),
        patch.object(trainers.kernels.fp8, "quantise_columns", lambda values, scales, into: into),
        patch.object(trainers.kernels.lora, "product_in", product_in),
        patch.object(trainers.kernels.loss, "in_place_cross_entropy", lambda *_, **__: None),
        patch.object(trainers.kernels.loss, "add_product", add_product),
    ):
        yield


def four_bit_matrix(base: trainers.kernels.bases.FourBitBase, dtype: torch.dtype) -> Tensor:
    """bitsandbytes writes into a given tensor on a GPU alone."""
    state = base.layer.weight.quant_state
    return base.buffer.take(tuple(state.shape), state.dtype, base.layer.weight.device).to(dtype)


def quantise_rows(values: Tensor, into: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """trainers/kernels/fp8_triton.py, rows_in_e4m3."""
    found = torch.zeros(values.shape, dtype=trainers.kernels.fp8.E4M3) if into is None else into
    return found, torch.zeros(len(values), 1)


def product_in(dtype: torch.dtype, left: Tensor, right: Tensor) -> Tensor:
    return torch.zeros(left.shape[0], right.shape[1], dtype=dtype)


def add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    if total.dtype != left.dtype:
        torch.zeros_like(total)
