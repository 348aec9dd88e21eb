"""Quantised layers on fake tensors, as the trainers load them: NF4 and int8 of bitsandbytes, 2 bits of HQQ; their kernels keep what a GPU's do."""

from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

import torch
from bitsandbytes import functional
from bitsandbytes.autograd import _functions
from bitsandbytes.functional import QuantState
from bitsandbytes.nn import Linear4bit, Linear8bitLt
from hqq.core.quantize import HQQLinear
from peft.tuners.lora.dora import DoraLinearLayer
from torch import nn
from transformers import PreTrainedModel

from conf.constants import HQQ_GROUP, NF4_BLOCK, NF4_SCALE_BLOCK
from trainers.model import experts, packing
from trainers.model.experts import PackedExperts, expert_modules, take_parameters
from trainers.model.packing import EIGHT_BITS, FOUR_BITS, FOUR_BITS_DOUBLE, TWO_BITS
from trainers.regimes.qlora import keep_no_inputs_of_frozen_weights

FORMS = {8: EIGHT_BITS, 4: FOUR_BITS_DOUBLE, 2: TWO_BITS}
OUTLIERS = 6.0  # transformers' default of llm_int8_threshold: with one, bitsandbytes looks for outliers in every input


def quantise(model: PreTrainedModel, bits: int) -> None:
    """Quantised layers in place of all linear ones but the head; their contents come with `fill`."""
    make = {8: int8_layer, 4: nf4_layer, 2: hqq_layer}[bits]
    for name, layer in list(model.base_model.named_modules()):
        if type(layer) is nn.Linear or (bits == 2 and isinstance(layer, nn.Linear)):  # as transformers and trainers/regimes/hqq.py choose
            with torch.device("meta"):
                quantised = make(layer)
            quantised.requires_grad_(False)
            quantised.bias = layer.bias
            model.base_model.set_submodule(name, quantised)
    for module in expert_modules(model).values():
        take_parameters(module, FORMS[bits], torch.bfloat16)
    # PEFT asks for these before it takes the adapters that are made for such layers
    model.is_loaded_in_4bit, model.is_loaded_in_8bit = bits == 4, bits == 8


def nf4_layer(layer: nn.Linear) -> Linear4bit:
    return Linear4bit(layer.in_features, layer.out_features, layer.bias is not None, compute_dtype=torch.bfloat16, quant_type="nf4")


def int8_layer(layer: nn.Linear) -> Linear8bitLt:
    return Linear8bitLt(layer.in_features, layer.out_features, layer.bias is not None, has_fp16_weights=False, threshold=OUTLIERS)


def hqq_layer(layer: nn.Linear) -> HQQLinear:
    made = HQQLinear(None, None, compute_dtype=torch.bfloat16, device="cpu", initialize=False)
    made.in_features, made.out_features = layer.in_features, layer.out_features
    made.W_q = nn.Parameter(torch.empty(HQQ_GROUP // 4, layer.weight.numel() // HQQ_GROUP, dtype=torch.uint8), requires_grad=False)
    made.ready = True
    return made


def fill(model: nn.Module, double_quant: bool) -> list[torch.Tensor]:
    """Fake contents for every quantised layer, whose other parameters are fake already; what lies beside the weights, to be counted."""
    beside = []
    for module in model.modules():
        if isinstance(module, Linear4bit):
            beside += fill_nf4(module, double_quant)
        elif isinstance(module, Linear8bitLt):
            beside += fill_int8(module)
        elif isinstance(module, HQQLinear):
            beside += fill_hqq(module)
        elif isinstance(module, PackedExperts):
            beside += fill_experts(module, double_quant)
    return beside


def fill_experts(packed: PackedExperts, double_quant: bool) -> list[torch.Tensor]:
    """Contents as trainers/model/packing.py makes them."""
    rows, columns, count = packed.outputs // packed.parts, packed.inputs, packed.experts * packed.parts
    scales, groups = rows * columns // NF4_BLOCK, rows * columns // HQQ_GROUP
    blocks = -(-scales // NF4_SCALE_BLOCK)
    if packed.form.bits == 4 and not double_quant:
        packed.form = FOUR_BITS
    packed.stacked = {
        EIGHT_BITS: lambda: {"values": torch.empty(count, rows, columns, dtype=torch.int8), "scales": torch.empty(count, rows)},
        FOUR_BITS: lambda: {"values": torch.empty(count, rows * columns // 2, dtype=torch.uint8), "scales": torch.empty(count, scales)},
        FOUR_BITS_DOUBLE: lambda: {
            "values": torch.empty(count, rows * columns // 2, dtype=torch.uint8),
            "scales": torch.empty(count, blocks * NF4_SCALE_BLOCK, dtype=torch.uint8),
            "scale_scales": torch.empty(count, blocks),
            "offset": torch.empty(count),
        },
        TWO_BITS: lambda: {
            "values": torch.empty(count, HQQ_GROUP // 4, groups, dtype=torch.uint8),
            "scales": torch.empty(count, 1, groups, dtype=torch.bfloat16),
            "zeros": torch.empty(count, 1, groups, dtype=torch.bfloat16),
        },
    }[packed.form]()
    return list(packed.stacked.values())


def fill_nf4(layer: Linear4bit, double_quant: bool) -> list[torch.Tensor]:
    """Fake tensors allow no subclass of Parameter: a plain one has what bitsandbytes asks for."""
    shape = torch.Size((layer.out_features, layer.in_features))
    packed = nn.Parameter(torch.empty((shape.numel() // 4, 1), dtype=torch.bfloat16), requires_grad=False)
    state = nf4_state(shape, double_quant)
    packed.quant_state = state  # type: ignore[attr-defined]
    layer._parameters["weight"] = packed
    layer.support_avx512bf16_for_cpu = False  # as the trainers set it
    states = [state, state.state2] if state.nested else [state]
    return [tensor for part in states for tensor in (part.absmax, part.code, part.offset) if tensor is not None]


def nf4_state(shape: torch.Size, double_quant: bool) -> QuantState:
    """What bitsandbytes keeps beside a packed weight of this shape (functional.py, quantize_4bit)."""
    scales = shape.numel() // NF4_BLOCK
    nested = QuantState(absmax=torch.empty(-(-scales // NF4_SCALE_BLOCK)), code=torch.empty(256), blocksize=NF4_SCALE_BLOCK, dtype=torch.float32)
    return QuantState(
        absmax=torch.empty(scales, dtype=torch.uint8 if double_quant else torch.float32),
        shape=shape,
        code=torch.empty(16),
        blocksize=NF4_BLOCK,
        quant_type="nf4",
        dtype=torch.bfloat16,
        offset=torch.empty(()) if double_quant else None,
        state2=nested if double_quant else None,
    )


def fill_int8(layer: Linear8bitLt) -> list[torch.Tensor]:
    weight = nn.Parameter(torch.empty(layer.out_features, layer.in_features, dtype=torch.int8), requires_grad=False)
    weight.CB = None  # type: ignore[attr-defined]  # the layer has taken it into its state
    layer._parameters["weight"] = weight
    layer.state.CB, layer.state.SCB = weight.data, torch.empty(layer.out_features)
    return [layer.state.SCB]


def fill_hqq(layer: HQQLinear) -> list[torch.Tensor]:
    """core/quantize.py, Quantizer.quantize with axis 0: groups of weights are columns."""
    groups = layer.in_features * layer.out_features // HQQ_GROUP
    scale, zero = torch.empty(1, groups, dtype=torch.bfloat16), torch.empty(1, groups, dtype=torch.bfloat16)
    layer.meta = {
        **{"nbits": 2, "group_size": HQQ_GROUP, "axis": 0, "packing": "2bit_u8", "shape": (layer.out_features, layer.in_features)},
        **{"scale": scale, "zero": zero, "quant_scale": False, "quant_zero": False, "compute_dtype": torch.bfloat16, "view_as_float": False},
    }
    return [scale, zero]


def magnitude(layer: DoraLinearLayer, *, base_layer: nn.Module, **_: object) -> None:
    """DoRA's, in fp32 as the adapters; PEFT takes the norms of a copy of the base, which has none without contents."""
    layer.weight = nn.Parameter(torch.empty(base_layer.out_features, device="meta"))


def dequantised(layer: nn.Module) -> torch.Tensor:
    """peft/utils/integrations.py, dequantize_module_weight, which knows bitsandbytes' weights by their classes."""
    if isinstance(layer, HQQLinear):
        return layer.dequantize()
    if isinstance(layer, Linear8bitLt):
        return functional.int8_vectorwise_dequant(layer.weight.data, layer.state.SCB)
    return functional.dequantize_4bit(layer.weight.data, layer.weight.quant_state) if isinstance(layer, Linear4bit) else layer.weight


@contextmanager
def quantised_as_on_a_gpu() -> Iterator[None]:
    """A CPU trains 8 bits through another autograd function (bitsandbytes/autograd/_functions.py, matmul), and fake tensors do not see what kernels
    make."""
    keep_no_inputs_of_frozen_weights()

    def multiply(rows: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, state: object) -> torch.Tensor:
        product: torch.Tensor = _functions.MatMul8bitLt.apply(rows, weight, None, bias, state)
        return product

    with (
        patch("bitsandbytes.matmul", multiply),
        patch("peft.tuners.lora.dora.dequantize_module_weight", dequantised),
        patch.object(functional, "int8_vectorwise_quant", quantise_rows),
        patch.object(experts, "bounds_of", even_bounds),
        patch.object(packing, "scale_code", lambda device: torch.empty(256, device=device)),
        patch.object(torch.ops.bitsandbytes, "int8_mixed_scaled_mm", multiply_rows),
    ):
        yield


def even_bounds(ends: torch.Tensor, copies: int) -> tuple[int, ...]:
    """A fake router says nothing: every expert gets as many rows."""
    return tuple(copies * number // len(ends) for number in range(len(ends) + 1))


def quantise_rows(rows: torch.Tensor, threshold: float = 0.0) -> tuple[torch.Tensor, torch.Tensor, None]:
    """backends/cuda/ops.py, int8_vectorwise_quant, of an input without outliers."""
    scales, quantised = torch.empty(rows.numel() // rows.shape[-1]), torch.empty(rows.shape, dtype=torch.int8)
    torch.ge(rows.abs(), threshold)
    return quantised, scales, None


def multiply_rows(
    rows: torch.Tensor, quantised: torch.Tensor, weight: torch.Tensor, *scales_and_outliers: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """backends/default/ops.py, int8_mixed_scaled_mm without outliers, and backends/cuda/ops.py, int8_mm_dequant: int32, fp16, then as asked."""
    product = torch.empty(quantised.shape[0], weight.shape[0], dtype=torch.int32)
    scaled = torch.empty_like(product, dtype=torch.float16)
    return scaled.to(rows.dtype), torch.empty(0, dtype=rows.dtype)
