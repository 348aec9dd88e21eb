"""The frozen linear layer under an adapter: plain, transposed (GPT-2), 4 and 8 bits of bitsandbytes.

Dequantising writes every number once, so it is deterministic; the products are as deterministic as the device's.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D


class Base(Protocol):
    def matrix(self, dtype: torch.dtype) -> Tensor:
        """[outputs, inputs]; of a quantised layer it lies in the shared buffer until the next one is asked for."""
        ...

    def output(self, hidden: Tensor, inner: Tensor, b: Tensor) -> Tensor:
        """hidden [tokens, inputs] @ matrix' + bias + inner [tokens, rank] @ b [rank, outputs], to [tokens, outputs]."""
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


def sum_of_products(wide: Tensor, matrix: Tensor, narrow: Tensor, small: Tensor, bias: Tensor | None = None) -> Tensor:
    """wide @ matrix + narrow @ small + bias, where `narrow` has a few columns: the second product is made into the output of the first, or before it.

    cuBLAS adds to a given output at the end of a product, beside its other work, if that product is long enough to hide it. On an H200, 8192 tokens
    and rank 16, to 14336 from 4096: 1.30 ms with the small product first, 1.40 ms with it last; to 4096 from 14336: 1.31 and 1.24 ms
    (benchmarks/speed/kernels_alone.py).
    """
    if matrix.shape[0] > matrix.shape[1]:
        first = wide @ matrix if bias is None else torch.addmm(bias, wide, matrix)
        return first.addmm_(narrow, small)
    first = narrow @ small if bias is None else torch.addmm(bias, narrow, small)
    return first.addmm_(wide, matrix)


def in_dtype(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """As tensor.to(dtype), which takes the host a microsecond to do nothing: each layer of each pass asks several times."""
    return tensor if tensor.dtype == dtype else tensor.to(dtype)


def bias_of(layer: nn.Module, dtype: torch.dtype) -> Tensor | None:
    bias: Tensor | None = layer.bias
    return None if bias is None else in_dtype(bias, dtype)


class Products(Protocol):
    """Of the frozen matrices of projections that share their input."""

    def outputs(self, hidden: Tensor, inners: Sequence[Tensor], bs: Sequence[Tensor]) -> list[Tensor]:
        """Of each projection, [tokens, outputs]: hidden [tokens, inputs] @ matrix' + bias + inner [tokens, rank] @ b [rank, outputs]."""
        ...

    def gradient(self, outer: Sequence[Tensor], inside: Tensor, a: Tensor, dropped: Tensor | None) -> Tensor:
        """[tokens, inputs]: each gradient times its matrix and, summed with it, inside [tokens, R] @ a [R, inputs], or `dropped` in its place."""
        ...


@dataclass(frozen=True)
class PlainProducts:
    """In the dtype of the input, one after the other."""

    bases: Sequence[Base]

    def outputs(self, hidden: Tensor, inners: Sequence[Tensor], bs: Sequence[Tensor]) -> list[Tensor]:
        return [base.output(hidden, inner, b) for base, inner, b in zip(self.bases, inners, bs, strict=True)]

    def gradient(self, outer: Sequence[Tensor], inside: Tensor, a: Tensor, dropped: Tensor | None) -> Tensor:
        first, *others = zip(outer, self.bases, strict=True)
        matrix = first[1].matrix(first[0].dtype)
        total = sum_of_products(first[0], matrix, inside, a) if dropped is None else dropped.addmm_(first[0], matrix)
        for gradient, base in others:
            total.addmm_(gradient, base.matrix(gradient.dtype))
        return total


@dataclass(frozen=True)
class PlainBase:
    layer: nn.Linear

    def matrix(self, dtype: torch.dtype) -> Tensor:
        return in_dtype(self.layer.weight, dtype)

    def output(self, hidden: Tensor, inner: Tensor, b: Tensor) -> Tensor:
        return sum_of_products(hidden, self.matrix(hidden.dtype).t(), inner, b, bias_of(self.layer, hidden.dtype))


@dataclass(frozen=True)
class TransposedBase:
    layer: Conv1D

    def matrix(self, dtype: torch.dtype) -> Tensor:
        return in_dtype(self.layer.weight, dtype).t()

    def output(self, hidden: Tensor, inner: Tensor, b: Tensor) -> Tensor:
        return sum_of_products(hidden, in_dtype(self.layer.weight, hidden.dtype), inner, b, bias_of(self.layer, hidden.dtype))


@dataclass(frozen=True)
class FourBitBase:
    """bitsandbytes.nn.Linear4bit: dequantised once in the forward and once in the backward pass, as bitsandbytes does for many tokens."""

    layer: nn.Module
    buffer: Buffer

    def matrix(self, dtype: torch.dtype) -> Tensor:
        from bitsandbytes.functional import dequantize_4bit

        packed, state = self.layer.weight.data.view(-1, 1), self.layer.weight.quant_state
        if packed.is_cuda:  # only there does bitsandbytes write into a tensor that it is given
            return dequantize_4bit(packed, state, out=self.buffer.take(tuple(state.shape), state.dtype, packed.device)).to(dtype)
        return dequantize_4bit(packed, state).to(dtype)

    def output(self, hidden: Tensor, inner: Tensor, b: Tensor) -> Tensor:
        return sum_of_products(hidden, self.matrix(hidden.dtype).t(), inner, b, bias_of(self.layer, hidden.dtype))


@dataclass(frozen=True)
class EightBitBase:
    """bitsandbytes.nn.Linear8bitLt: its own product, outliers included; the matrix of the backward pass as MatMul8bitLt.backward makes it."""

    layer: nn.Module
    buffer: Buffer

    def matrix(self, dtype: torch.dtype) -> Tensor:
        state = self.layer.state
        matrix = self.buffer.take(tuple(state.CB.shape), dtype, state.CB.device)
        return matrix.copy_(state.CB).mul_(state.SCB.unsqueeze(1).mul(1.0 / 127.0))

    def output(self, hidden: Tensor, inner: Tensor, b: Tensor) -> Tensor:
        product: Tensor = self.layer(hidden)
        return product.addmm_(inner, b)
