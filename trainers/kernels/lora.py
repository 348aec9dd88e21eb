"""LoRA and QLoRA layers as one autograd function for each group of projections that share their input (arXiv:2106.09685, arXiv:2305.14314).

PEFT computes an adapter by two more layers, dropout, a scale and a sum, each with its own kernel and its own saved tensors; under autocast it widens
the whole input to the adapter's fp32 and autocast narrows it again. Here the same sum is four products, and nothing is widened.

Saved for the backward pass of one group (T tokens, `inputs` wide, all adapters of the group together R wide), in the dtype of the computation:

- its input, T x inputs: the tensor that the layer before it made, not a copy, unless autocast narrows it;
- the input times the A matrices, T x R;
- with dropout, of each projection one boolean mask of T x inputs (such projections are not grouped).

The base's product, the weights and the dequantised matrix are not saved. Two tensors live as long as the model: the adapters' copies in the dtype of
the computation (`Casts`), and the buffer for one dequantised matrix (trainers/kernels/bases.py). In the backward pass there are, beside the gradients
of inputs and outputs, T x R for the gradient of the inner product, and the adapters' own gradients.

Covered: LoRA, rsLoRA, PiSSA and LoRA+ of any rank, alpha and dropout on nn.Linear, GPT-2's Conv1D, and bitsandbytes' 4- and 8-bit layers, with or
without a frozen bias. PEFT's own path stays for DoRA and PEFT's other variants, a trained bias, HQQ's 2 bits, adapters of experts
(target_parameters), a merged or switched-off adapter, several adapters at once, and wherever no gradient is asked for: evaluation and generation.
The backward pass is as deterministic as the matrix products of the device: cuBLAS' are with training.deterministic=true.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from peft.tuners.lora.layer import ParamWrapper
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from trainers.kernels.bases import Base, Buffer, EightBitBase, FourBitBase, PlainBase, PlainProducts, Products, TransposedBase, in_dtype
from trainers.kernels.fp8 import Fp8Base, Fp8Products, suits

# Projections that read one tensor, as the families name them; they are asked one after the other, and all are computed when the first is.
SHARING = (frozenset({"q_proj", "k_proj", "v_proj"}), frozenset({"gate_proj", "up_proj"}))


@dataclass(frozen=True)
class Projection:
    """A frozen layer with its adapter; `a` is [rank, inputs], `b` is [outputs, rank]."""

    layer: LoraLayer
    name: str  # of the adapter
    base: Base | Fp8Base
    a: nn.Parameter
    b: nn.Parameter
    scale: float
    dropout: nn.Dropout | None


class Group:
    """Projections of one input. Casts writes `a` [R, inputs] and `bs`, each [outputs, rank] and scaled: the adapters as they are computed with."""

    def __init__(self, projections: Sequence[Projection]) -> None:
        self.projections = tuple(projections)
        self.products = products_of([each.base for each in projections])
        self.scale = projections[0].scale
        self.dropout = projections[0].dropout
        self.ranks = [each.a.shape[0] for each in projections]
        self.adapters = (*(each.a for each in projections), *(each.b for each in projections))
        self.a = self.a_transposed = torch.empty(0)
        self.bs: list[Tensor] = []
        self.bs_transposed: list[Tensor] = []
        self.held_for: Tensor | None = None
        self.held: dict[int, Tensor] = {}

    def output(self, index: int, hidden: Tensor) -> Tensor:
        """Of one projection. The first that is asked for an input computes those of all; the others fetch theirs, and nothing stays."""
        if len(self.projections) == 1:
            return LoraProjections.apply(hidden, self, *self.adapters)[0]
        if self.held_for is not hidden or index not in self.held:
            self.held_for, self.held = hidden, dict(enumerate(LoraProjections.apply(hidden, self, *self.adapters)))
        found = self.held.pop(index)
        if not self.held:
            self.held_for = None
        return found

    def columns(self, inner: Tensor) -> tuple[Tensor, ...]:
        """Those of each projection in the inner product of all."""
        return (inner,) if len(self.ranks) == 1 else torch.split_with_sizes(inner, self.ranks, 1)


class LoraProjections(torch.autograd.Function):
    """y_i = W_i x + bias_i + scale * B_i A_i dropout(x) for every projection i of a group, x [..., inputs]."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, group: Group, *adapters: Tensor) -> tuple[Tensor, ...]:
        dtype, shape = group.a.dtype, hidden.shape
        flat = in_dtype(hidden, dtype).reshape(-1, shape[-1])
        dropout = group.dropout.p if group.dropout is not None and group.dropout.training else 0.0
        dropped, mask = torch.native_dropout(flat, dropout, True) if dropout else (flat, None)
        inner = dropped @ group.a_transposed
        outputs = group.products.outputs(flat, group.columns(inner), group.bs_transposed)
        ctx.save_for_backward(flat, inner, *(() if mask is None else (mask,)))
        ctx.group, ctx.shape, ctx.dtype, ctx.dropout = group, shape, hidden.dtype, dropout
        # not a view to autograd, which would refuse to have it changed in place
        return tuple(torch.ops.aten._unsafe_view(output, (*shape[:-1], output.shape[-1])) for output in outputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        flat, inner, *masks = ctx.saved_tensors
        group: Group = ctx.group
        outer = [gradient.reshape(-1, gradient.shape[-1]) for gradient in gradients]
        inside = gradient_of_inner(group, outer, inner)
        kept = 1 / (1 - ctx.dropout)
        dropped = torch.ops.aten.native_dropout_backward(flat, masks[0], kept) if masks else flat
        of_a = product_in(group.adapters[0].dtype, inside.t(), dropped)
        scaled = group.columns(inner if group.scale == 1 else inner * group.scale)
        of_b = [product_in(group.adapters[-1].dtype, gradient.t(), part) for gradient, part in zip(outer, scaled, strict=True)]
        of_hidden = None
        if ctx.needs_input_grad[0]:
            of_dropped = torch.ops.aten.native_dropout_backward(inside @ group.a, masks[0], kept) if masks else None
            of_hidden = in_dtype(group.products.gradient(outer, inside, group.a, of_dropped).view(ctx.shape), ctx.dtype)
        return (of_hidden, None, *((of_a,) if len(of_b) == 1 else torch.split_with_sizes(of_a, group.ranks)), *of_b)


def gradient_of_inner(group: Group, outer: Sequence[Tensor], inner: Tensor) -> Tensor:
    """[tokens, R], of A x: each gradient times its scaled B, side by side."""
    if len(outer) == 1:
        return torch.mm(outer[0], group.bs[0])
    inside = torch.empty_like(inner)
    for gradient, b, part in zip(outer, group.bs, group.columns(inside), strict=True):
        torch.mm(gradient, b, out=part)
    return inside


def product_in(dtype: torch.dtype, left: Tensor, right: Tensor) -> Tensor:
    """left @ right in `dtype`: on a GPU the sums, fp32 anyway, are not rounded to 16 bits on their way to an fp32 gradient."""
    if dtype == left.dtype:
        return left @ right
    return torch.mm(left, right, out_dtype=dtype) if left.is_cuda else (left @ right).to(dtype)


class Casts:
    """The adapters of all groups in the dtype of the computation, side by side: the A matrices of a group stacked, the B matrices scaled.

    They are written anew at the beginning of every forward pass of the decoder, by a few kernels over all (0.25 GB at rank 16 on an 8B model).
    That is more often than once a step under accumulation, and there is nothing to invalidate: the fused optimizers of torch, those of bitsandbytes
    and DeepSpeed change parameters without raising their version counters, so a copy that asked those would go stale without a word. A backward pass
    reads the copies of the last forward pass; that they still equal the parameters is what every optimizer step after its backward pass means.
    """

    def __init__(self, groups: Sequence[Group]) -> None:
        self.groups = groups
        self.sources = [weight for group in groups for weight in group.adapters]
        self.scaled = [weight for group in groups for weight in group.adapters[len(group.ranks) :]]
        self.scales = [group.scale for group in groups for _ in group.ranks]
        self.room = torch.empty(0)
        self.plain_parts: list[Tensor] = []
        self.scaled_parts: list[Tensor] = []

    def refresh(self, dtype: torch.dtype) -> None:
        """Of a scaled matrix the product with the scale is rounded, once."""
        if self.room.dtype != dtype or not self.plain_parts or self.room.device != self.sources[0].device:
            self.lay_out(dtype)
        with torch.no_grad():
            torch._foreach_copy_(self.plain_parts, [weight for group in self.groups for weight in group.adapters[: len(group.ranks)]])
            torch._foreach_copy_(self.scaled_parts, torch._foreach_mul(self.scaled, self.scales))

    def lay_out(self, dtype: torch.dtype) -> None:
        sizes = [weight.numel() for weight in self.sources]
        self.room = torch.empty(sum(sizes), dtype=dtype, device=self.sources[0].device)
        parts = [part.view(weight.shape) for part, weight in zip(self.room.split(sizes), self.sources, strict=True)]
        self.plain_parts, self.scaled_parts = [], []
        begin, part = 0, 0
        for group in self.groups:
            count, inputs, width = len(group.ranks), group.adapters[0].shape[1], sum(group.ranks)
            group.a = self.room[begin : begin + width * inputs].view(width, inputs)
            group.a_transposed = group.a.t()
            group.bs = parts[part + count : part + 2 * count]
            group.bs_transposed = [b.t() for b in group.bs]
            self.plain_parts += parts[part : part + count]
            self.scaled_parts += group.bs
            begin, part = begin + sum(sizes[part : part + 2 * count]), part + 2 * count


class FusedForward:
    """Stands for the forward method of one of PEFT's layers, which it keeps for what it does not cover."""

    def __init__(self, layer: LoraLayer, name: str, group: Group, index: int) -> None:
        self.layer, self.name, self.group, self.index = layer, name, group, index
        self.plain: Callable[..., Tensor] = layer.forward

    @property
    def projection(self) -> Projection:
        return self.group.projections[self.index]

    def __call__(self, hidden: Tensor, *arguments: Any, **keywords: Any) -> Tensor:
        if arguments or keywords or not torch.is_grad_enabled() or self.otherwise():
            return self.plain(hidden, *arguments, **keywords)
        return self.group.output(self.index, hidden)

    def otherwise(self) -> bool:
        """Whether the adapter is off, merged, or not the one that is fused; asked in every layer, so by the fields behind PEFT's properties."""
        layer = self.layer
        return bool(layer._disable_adapters or layer.merged_adapters or layer._active_adapter not in (self.name, [self.name]))


def fuse_adapters(model: PeftModel, fp8: bool = False) -> dict[str, int]:
    """Give the covered layers of `model` one function each, or each group of them; of the others, why not and how many.

    Parameters, their names and what is saved stay PEFT's. `fp8`: products of frozen nn.Linear whose sides are multiples of 16 are made in 8 bits
    (trainers/kernels/fp8.py).
    """
    buffer, left = Buffer(), Counter[str]()
    found: dict[str, Projection] = {}
    for name, layer in model.named_modules():
        if isinstance(layer, LoraLayer):
            reason = uncovered(layer)
            if reason is None:
                found[name] = projection_of(layer, base_of(layer.get_base_layer(), buffer, fp8))
            else:
                left[reason] += 1
    groups = [Group([found[name] for name in names]) for names in grouped(found)]
    for group in groups:
        for index, projection in enumerate(group.projections):
            projection.layer.forward = FusedForward(projection.layer, projection.name, group, index)
    if groups:
        refresh_before_every_pass(model, Casts(groups))
    return dict(left)


def products_in_fp8(model: PeftModel) -> tuple[int, int]:
    """Of the frozen matrices with a fused adapter: how many have products in 8 bits, and how many do not."""
    bases = [each.forward.projection.base for each in model.modules() if isinstance(each, LoraLayer) and isinstance(each.forward, FusedForward)]
    rounded = sum(isinstance(base, Fp8Base) for base in bases)
    return rounded, len(bases) - rounded


def products_of(bases: Sequence[Base | Fp8Base]) -> Products:
    """Of one group, whose bases are of one kind."""
    rounded = [base for base in bases if isinstance(base, Fp8Base)]
    return Fp8Products(rounded) if rounded else PlainProducts([base for base in bases if not isinstance(base, Fp8Base)])


def projection_of(layer: LoraLayer, base: Base | Fp8Base) -> Projection:
    name = layer.active_adapters[0]
    dropout = layer.lora_dropout[name]
    weights = layer.lora_A[name].weight, layer.lora_B[name].weight
    return Projection(layer, name, base, *weights, float(layer.scaling[name]), dropout if isinstance(dropout, nn.Dropout) else None)


def refresh_before_every_pass(model: PeftModel, casts: Casts) -> None:
    """The decoder is called by every way into the model; PEFT calls the forward of the model around it without its hooks."""
    first, frozen = casts.sources[0], model.get_base_model().dtype

    def refresh(*_: Any) -> None:
        device = first.device.type
        if torch.is_grad_enabled():
            casts.refresh(torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else frozen)

    model.get_base_model().base_model.register_forward_pre_hook(refresh)


def grouped(found: dict[str, Projection]) -> list[list[str]]:
    """Names of projections, those together that share their input: one scale and, since every adapter draws its own, no dropout."""
    groups: dict[tuple[object, ...], list[str]] = {}
    for name, projection in found.items():
        parent, _, own = name.rpartition(".")
        together = next((number for number, names in enumerate(SHARING) if own in names), None)
        alone = together is None or projection.dropout is not None
        key = (name,) if alone else (parent, together, projection.scale, projection.a.shape[1], type(projection.base))
        groups.setdefault(key, []).append(name)
    return list(groups.values())


def uncovered(layer: LoraLayer) -> str | None:
    """Why a layer keeps PEFT's forward pass; None where this module reaches."""
    base = layer.get_base_layer()
    names = list(layer.lora_A)
    if len(names) != 1 or layer.active_adapters != names:
        return "has no adapter of its own, or several"
    if layer.lora_variant:
        return f"is PEFT's variant {type(next(iter(layer.lora_variant.values()))).__name__}"
    if any(layer.lora_bias.values()) or not isinstance(layer.lora_dropout[names[0]], (nn.Identity, nn.Dropout)):
        return "has a bias in its adapter, or another dropout"
    if isinstance(layer, ParamWrapper) or not isinstance(base, (nn.Linear, Conv1D)):
        return f"lies on {type(base).__name__}"
    if base.bias is not None and base.bias.requires_grad:
        return "has a bias that learns"
    return None


def base_of(layer: nn.Module, buffer: Buffer, fp8: bool) -> Base | Fp8Base:
    import bitsandbytes.nn

    if isinstance(layer, bitsandbytes.nn.Linear4bit):
        return FourBitBase(layer, buffer)
    if isinstance(layer, bitsandbytes.nn.Linear8bitLt):
        return EightBitBase(layer, buffer)
    if isinstance(layer, Conv1D):
        return TransposedBase(layer)
    assert isinstance(layer, nn.Linear)
    return Fp8Base(layer, buffer) if fp8 and suits(layer) else PlainBase(layer)
