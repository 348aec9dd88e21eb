"""The frozen linear layer under an adapter, as a product and as a matrix: plain, transposed (GPT-2), 4 and 8 bits of bitsandbytes."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.pytorch_utils import Conv1D


class Base(Protocol):
    def product(self, hidden: Tensor) -> Tensor:
        """[..., inputs] to [..., outputs] with the bias, in the dtype of `hidden`."""
        ...

    def matrix(self, dtype: torch.dtype) -> Tensor:
        """[outputs, inputs]; of a quantised layer it lies in the shared buffer until the next one is asked for."""
        ...


class Buffer:
    """Room for one dequantised matrix, used again by every layer in turn. Kernels of one stream follow each other, so none is overwritten in use."""

    def __init__(self) -> None:
        self.room: dict[torch.dtype, Tensor] = {}

    def take(self, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
        """An uninitialised view of `shape`; grows to the largest shape that was ever asked for."""
        size = torch.Size(shape).numel()
        if dtype not in self.room or self.room[dtype].numel() < size or self.room[dtype].device != device:
            self.room[dtype] = torch.empty(size, dtype=dtype, device=device)
        return self.room[dtype][:size].view(shape)


@dataclass(frozen=True)
class PlainBase:
    layer: nn.Linear

    def product(self, hidden: Tensor) -> Tensor:
        bias = self.layer.bias
        return functional.linear(hidden, self.matrix(hidden.dtype), None if bias is None else bias.to(hidden.dtype))

    def matrix(self, dtype: torch.dtype) -> Tensor:
        return self.layer.weight.to(dtype)


@dataclass(frozen=True)
class TransposedBase:
    layer: Conv1D

    def product(self, hidden: Tensor) -> Tensor:
        return functional.linear(hidden, self.matrix(hidden.dtype), self.layer.bias.to(hidden.dtype))

    def matrix(self, dtype: torch.dtype) -> Tensor:
        weight: Tensor = self.layer.weight
        return weight.to(dtype).t()


@dataclass(frozen=True)
class FourBitBase:
    """bitsandbytes.nn.Linear4bit: dequantised once in the forward and once in the backward pass, as bitsandbytes does for many tokens."""

    layer: nn.Module
    buffer: Buffer

    def product(self, hidden: Tensor) -> Tensor:
        bias = self.layer.bias
        return functional.linear(hidden, self.matrix(hidden.dtype), None if bias is None else bias.to(hidden.dtype))

    def matrix(self, dtype: torch.dtype) -> Tensor:
        from bitsandbytes.functional import dequantize_4bit

        packed, state = self.layer.weight.data.view(-1, 1), self.layer.weight.quant_state
        if packed.is_cuda:  # only there does bitsandbytes write into a tensor that it is given
            return dequantize_4bit(packed, state, out=self.buffer.take(tuple(state.shape), state.dtype, packed.device)).to(dtype)
        return dequantize_4bit(packed, state).to(dtype)


@dataclass(frozen=True)
class EightBitBase:
    """bitsandbytes.nn.Linear8bitLt: its own product, outliers included; the matrix of the backward pass as MatMul8bitLt.backward makes it."""

    layer: nn.Module
    buffer: Buffer

    def product(self, hidden: Tensor) -> Tensor:
        product: Tensor = self.layer(hidden)
        return product

    def matrix(self, dtype: torch.dtype) -> Tensor:
        state = self.layer.state
        matrix = self.buffer.take(tuple(state.CB.shape), dtype, state.CB.device)
        return matrix.copy_(state.CB).mul_(state.SCB.unsqueeze(1).mul(1.0 / 127.0))
