"""The casts of trainers/kernels/fp8.py on a GPU: each reads its numbers once, and writes each of them once.

A module of its own, since triton is there on GPUs alone.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from trainers.kernels.fp8 import E4M3, LARGEST, LEAST

WIDE = 8192  # numbers of a row that half of the threads of a block hold well
TILE_ROWS, TILE_COLUMNS = 128, 64


@triton.jit
def rows_kernel(values, out, scales, width, stride, least: tl.constexpr, largest: tl.constexpr, block: tl.constexpr):  # type: ignore[no-untyped-def]
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, block)
    inside = at < width
    numbers = tl.load(values + row * stride + at, mask=inside, other=0.0).to(tl.float32)
    unreal = tl.sum(numbers * 0.0, axis=0)  # 0, or NaN where the row holds NaN or an infinity, which a maximum need not show
    scale = tl.maximum(tl.max(tl.abs(numbers), axis=0), least) / largest + unreal
    tl.store(scales + row, scale)
    tl.store(out + row * width + at, (numbers * (1.0 / scale)).to(tl.float8e4nv), mask=inside)


@triton.jit
def columns_kernel(values, out, scales, rows, width, tile_rows: tl.constexpr, tile_columns: tl.constexpr):  # type: ignore[no-untyped-def]
    row = tl.program_id(0) * tile_rows + tl.arange(0, tile_rows).to(tl.int64)
    column = tl.program_id(1) * tile_columns + tl.arange(0, tile_columns).to(tl.int64)
    inside = (row[:, None] < rows) & (column[None, :] < width)
    numbers = tl.load(values + row[:, None] * width + column[None, :], mask=inside, other=0.0).to(tl.float32)
    inverse = 1.0 / tl.load(scales + column, mask=column < width, other=1.0)
    turned = tl.trans((numbers * inverse[None, :]).to(tl.float8e4nv))
    tl.store(out + column[:, None] * rows + row[None, :], turned, mask=(column[:, None] < width) & (row[None, :] < rows))


def rows_in_e4m3(values: Tensor, into: Tensor | None) -> tuple[Tensor, Tensor]:
    values = values if values.stride(1) == 1 else values.contiguous()
    rows, width = values.shape
    found = torch.empty(rows, width, dtype=E4M3, device=values.device) if into is None else into
    scales = torch.empty(rows, 1, dtype=torch.float32, device=values.device)
    block = triton.next_power_of_2(width)
    rows_kernel[(rows,)](values, found, scales, width, values.stride(0), LEAST, LARGEST, block, num_warps=8 if block <= WIDE else 16)
    return found, scales


def columns_in_e4m3(values: Tensor, scales: Tensor, into: Tensor) -> Tensor:
    rows, width = values.shape
    grid = (triton.cdiv(rows, TILE_ROWS), triton.cdiv(width, TILE_COLUMNS))
    columns_kernel[grid](values, into, scales, rows, width, TILE_ROWS, TILE_COLUMNS, num_warps=8)
    return into
