"""Matrices of experts in 8, 4 or 2 bits: packed one by one, unpacked several at a time.

The forms are those of quantised linear layers: LLM.int8 (arXiv:2208.07339) with one scale a row, NF4 (arXiv:2305.14314) in blocks of 64 weights with
scales that may be packed themselves, and HQQ's 2 bits in groups of 64. A packed matrix is a dictionary of tensors of one size for all experts, so
that those of many experts can be stacked and unpacked by one call.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache

import bitsandbytes.functional as bnb
import torch
from torch import Tensor

from conf.constants import HQQ_GROUP, NF4_BLOCK, NF4_SCALE_BLOCK
from conf.schema import Qlora

Packed = dict[str, Tensor]
# Better results than axis 1 at the same size, according to the FAQ of HQQ; axis 1 is for inference kernels, which have no backward pass.
HQQ_AXIS = 0
WHOLE_SCALE = 127.0  # bitsandbytes/functional.py, int8_vectorwise_dequant


@dataclass(frozen=True)
class Form:
    """How one matrix is packed, and how stacked ones become a tensor of a shape and dtype again, in their order."""

    bits: int
    block: int  # of so many weights a matrix must be a multiple
    pack: Callable[[Tensor, torch.dtype], Packed]
    unpack: Callable[[Packed, torch.Size, torch.dtype], Tensor]


def form_of(regime: Qlora) -> Form:
    """Raises ValueError for other numbers of bits."""
    forms = {8: EIGHT_BITS, 4: FOUR_BITS_DOUBLE if regime.double_quant else FOUR_BITS, 2: TWO_BITS}
    if regime.bits not in forms:
        raise ValueError(f"regime.bits={regime.bits} is not supported. Choose 8 or 4 (bitsandbytes) or 2 (HQQ).")
    return forms[regime.bits]


def pack_8(matrix: Tensor, dtype: torch.dtype) -> Packed:
    values, scales, _ = bnb.int8_vectorwise_quant(matrix.to(torch.float16))
    return {"values": values, "scales": scales}


def unpack_8(packed: Packed, shape: torch.Size, dtype: torch.dtype) -> Tensor:
    """A row's values times its scale, in place: a 16-bit float holds every number of 8 bits."""
    return packed["values"].to(dtype).mul_(packed["scales"].unsqueeze(-1).div(WHOLE_SCALE)).view(shape)


def pack_4(matrix: Tensor, dtype: torch.dtype) -> Packed:
    values, state = bnb.quantize_4bit(matrix, blocksize=NF4_BLOCK, quant_type="nf4")
    return {"values": values.flatten(), "scales": state.absmax}


def unpack_4(packed: Packed, shape: torch.Size, dtype: torch.dtype) -> Tensor:
    state = bnb.QuantState(absmax=packed["scales"].flatten(), shape=shape, dtype=dtype, blocksize=NF4_BLOCK, quant_type="nf4")
    return bnb.dequantize_4bit(packed["values"].reshape(-1, 1), state)


def pack_4_double(matrix: Tensor, dtype: torch.dtype) -> Packed:
    """The packed scales are filled up to whole blocks, so that those of several matrices can stand one behind the other."""
    values, state = bnb.quantize_4bit(matrix, blocksize=NF4_BLOCK, quant_type="nf4", compress_statistics=True)
    scales = state.absmax.flatten()
    filled = torch.nn.functional.pad(scales, (0, -len(scales) % NF4_SCALE_BLOCK))
    return {"values": values.flatten(), "scales": filled, "scale_scales": state.state2.absmax, "offset": state.offset}


def unpack_4_double(packed: Packed, shape: torch.Size, dtype: torch.dtype) -> Tensor:
    scales, own = packed["scales"], 2 * packed["values"].shape[-1] // NF4_BLOCK
    code, sizes = scale_code(scales.device), packed["scale_scales"].flatten()
    filled = bnb.dequantize_blockwise(scales.flatten(), absmax=sizes, code=code, blocksize=NF4_SCALE_BLOCK)
    whole = filled.view(scales.shape)[:, :own]
    whole += packed["offset"].unsqueeze(-1)
    return unpack_4({"values": packed["values"], "scales": whole}, shape, dtype)


@lru_cache
def scale_code(device: torch.device) -> Tensor:
    """What bitsandbytes packs scales with (functional.py, quantize_blockwise)."""
    code: Tensor = bnb.create_dynamic_map().to(device)
    return code


def pack_2(matrix: Tensor, dtype: torch.dtype) -> Packed:
    from hqq.core.quantize import Quantizer

    with keeping_cached_memory():
        values, state = Quantizer.quantize(matrix, nbits=2, group_size=HQQ_GROUP, axis=HQQ_AXIS, device=str(matrix.device))
    return {"values": values, "scales": state["scale"].to(dtype), "zeros": state["zero"].to(dtype)}


@contextmanager
def keeping_cached_memory() -> Iterator[None]:
    """HQQ hands all cached memory back to the driver three times a matrix (hqq/core/quantize.py): the GPU waits for each, and a mixture has
    thousands. What is cached is reused for the next matrix instead; fill_experts hands it back once, at its end."""
    original = torch.cuda.empty_cache
    torch.cuda.empty_cache = lambda: None
    try:
        yield
    finally:
        torch.cuda.empty_cache = original


def unpack_2(packed: Packed, shape: torch.Size, dtype: torch.dtype) -> Tensor:
    """As hqq/core/bitpack.py, unpack_2bit_u8, into one tensor that is then scaled in place."""
    values = packed["values"]
    matrices, rows, columns = values.shape
    whole = torch.empty(matrices, 4 * rows, columns, dtype=dtype, device=values.device)
    for quarter, shift in enumerate((6, 4, 2, 0)):
        whole[:, quarter * rows : (quarter + 1) * rows] = (values >> shift).bitwise_and_(0b11)
    return whole.sub_(packed["zeros"]).mul_(packed["scales"]).view(shape)


EIGHT_BITS = Form(8, 1, pack_8, unpack_8)
FOUR_BITS = Form(4, NF4_BLOCK, pack_4, unpack_4)
FOUR_BITS_DOUBLE = Form(4, NF4_BLOCK, pack_4_double, unpack_4_double)
TWO_BITS = Form(2, HQQ_GROUP, pack_2, unpack_2)
