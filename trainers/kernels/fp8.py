"""Products of frozen matrices in 8-bit floating point (e4m3, arXiv:2209.05433) for training.fp8=true, each row and column with a scale of its own.

y = x W' is made of x and W rounded to e4m3, each row divided by its largest magnitude and multiplied by 448, the largest number of e4m3; so is
the gradient of x, of the gradient of y and the columns of W. The sums are those of the GPU's 8-bit products (torch._scaled_mm), answered in bf16.
A number of e4m3 has four significant bits: what is rounded is off by at most a sixteenth of itself, if it is not tiny beside the largest of its row.
Adapters, their gradients and everything else stay in 16 and 32 bits, and so do passes without gradients: evaluation and generation compute what the
saved adapter will be used with.

The weights stay in 16 bits, and are cast at every use into one buffer that all layers share: 8-bit copies for both passes, whose rows are the columns
of each other, would take as much memory again as the weights. Saved for the backward pass is what trainers/kernels/lora.py saves. Beside it there
are, while a product is made, its rows in 8 bits with one fp32 scale each; as long as the model lives, one 8-bit matrix, and one fp32 scale a column.

Casts write every number once, and add nothing: they are deterministic. The products are as deterministic as the device's.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from conf.kernels import FP8_MULTIPLE
from trainers.kernels.bases import Buffer

E4M3 = torch.float8_e4m3fn
LARGEST = torch.finfo(E4M3).max
LEAST = 1e-12  # as the largest magnitude of a row of zeros
CAPABLE = (8, 9)  # compute capability: Ada and newer have 8-bit floating point products


def suits(layer: nn.Linear) -> bool:
    return layer.in_features % FP8_MULTIPLE == 0 and layer.out_features % FP8_MULTIPLE == 0


def quantise_rows(values: Tensor, into: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """values [rows, width] to e4m3 [rows, width], in `into` if that is given, and fp32 scales [rows, 1] to multiply them by.

    A row that holds NaN or an infinity has no finite result.
    """
    if values.is_cuda:
        from trainers.kernels.fp8_triton import rows_in_e4m3

        return rows_in_e4m3(values, into)
    scales = scales_of(values.abs().amax(1, keepdim=True))
    found = (values / scales).to(E4M3)
    return found if into is None else into.copy_(found), scales


def quantise_columns(values: Tensor, scales: Tensor, into: Tensor) -> Tensor:
    """values [rows, width], divided by the scales [width, 1] of its columns, transposed to e4m3 [width, rows] in `into`."""
    if values.is_cuda:
        from trainers.kernels.fp8_triton import columns_in_e4m3

        return columns_in_e4m3(values, scales, into)
    return into.copy_((values.t() / scales).to(E4M3))


def scales_of(magnitudes: Tensor) -> Tensor:
    return magnitudes.float().clamp_min(LEAST) / LARGEST


def product(rows: Tensor, scales: Tensor, matrix: Tensor, matrix_scales: Tensor, dtype: torch.dtype, fast: bool) -> Tensor:
    """rows [tokens, width] times matrix [outputs, width] transposed, each with its scales; to [tokens, outputs].

    `fast`: the sums are kept in fewer bits between their parts. torchao does so in the forward pass, and not where gradients are summed.
    """
    return torch._scaled_mm(rows, matrix.t(), scale_a=scales, scale_b=matrix_scales.t(), out_dtype=dtype, use_fast_accum=fast)


class Fp8Base:
    """A frozen nn.Linear under an adapter, whose products are made in 8 bits."""

    def __init__(self, layer: nn.Linear, buffer: Buffer) -> None:
        self.layer, self.buffer = layer, buffer
        self.scales: Tensor | None = None  # fp32 [inputs, 1], of the columns

    def output(self, rows: Tensor, scales: Tensor, inner: Tensor, b: Tensor) -> Tensor:
        """rows e4m3 [tokens, inputs] @ weight' + inner [tokens, rank] @ b [rank, outputs] + bias, to [tokens, outputs]."""
        weight, bias = self.layer.weight, self.layer.bias
        matrix, of_outputs = quantise_rows(weight, self.buffer.take(tuple(weight.shape), E4M3, weight.device))
        output = product(rows, scales, matrix, of_outputs, inner.dtype, fast=True).addmm_(inner, b)
        return output if bias is None else output.add_(bias)

    def back(self, gradient: Tensor) -> Tensor:
        """gradient [tokens, outputs] @ weight, to [tokens, inputs]."""
        weight = self.layer.weight
        if self.scales is None or self.scales.device != weight.device:
            self.scales = scales_of(torch.linalg.vector_norm(weight, float("inf"), dim=0)).unsqueeze(1)
        rows, scales = quantise_rows(gradient)
        matrix = quantise_columns(weight, self.scales, self.buffer.take((weight.shape[1], weight.shape[0]), E4M3, weight.device))
        return product(rows, scales, matrix, self.scales, gradient.dtype, fast=False)


@dataclass(frozen=True)
class Fp8Products:
    """Of all projections of one input, whose rows are rounded once."""

    bases: Sequence[Fp8Base]

    def outputs(self, hidden: Tensor, inners: Sequence[Tensor], bs: Sequence[Tensor]) -> list[Tensor]:
        rows, scales = quantise_rows(hidden)
        return [base.output(rows, scales, inner, b) for base, inner, b in zip(self.bases, inners, bs, strict=True)]

    def gradient(self, outer: Sequence[Tensor], inside: Tensor, a: Tensor, dropped: Tensor | None) -> Tensor:
        first, *others = zip(self.bases, outer, strict=True)
        total = first[0].back(first[1])
        total = total.addmm_(inside, a) if dropped is None else total.add_(dropped)
        for base, gradient in others:
            total.add_(base.back(gradient))
        return total
