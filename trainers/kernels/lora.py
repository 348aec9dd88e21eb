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
The backward pass is as deterministic as the matrix products of the device.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from peft.tuners.lora.layer import ParamWrapper
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from trainers.kernels.bases import Base, Buffer, EightBitBase, FourBitBase, PlainBase, TransposedBase

# Projections that read one tensor, as the families name them; they are asked one after the other, and all are computed when the first is.
SHARING = (frozenset({"q_proj", "k_proj", "v_proj"}), frozenset({"gate_proj", "up_proj"}))


@dataclass(frozen=True)
class Projection:
    """A frozen layer with its adapter; A is [rank, inputs], B is [outputs, rank]."""

    layer: LoraLayer
    name: str  # of the adapter
    base: Base

    @property
    def a(self) -> nn.Parameter:
        weight: nn.Parameter = self.layer.lora_A[self.name].weight
        return weight

    @property
    def b(self) -> nn.Parameter:
        weight: nn.Parameter = self.layer.lora_B[self.name].weight
        return weight

    @property
    def rank(self) -> int:
        return self.a.shape[0]

    @property
    def scale(self) -> float:
        return float(self.layer.scaling[self.name])

    @property
    def dropout(self) -> float:
        """The share of the adapter's input that is dropped now."""
        module = self.layer.lora_dropout[self.name]
        return float(module.p) if isinstance(module, nn.Dropout) and module.training else 0.0


@dataclass
class Group:
    """Projections of one input. `a` [R, inputs] and `bs` are the adapters in the dtype of the computation; Casts writes them."""

    projections: tuple[Projection, ...]
    a: Tensor = field(default_factory=lambda: torch.empty(0))
    bs: tuple[Tensor, ...] = ()
    held_for: Tensor | None = None
    held: dict[int, Tensor] = field(default_factory=dict)

    @property
    def spans(self) -> Iterator[slice]:
        """The columns of the inner product that belong to each projection."""
        begin = 0
        for projection in self.projections:
            yield slice(begin, begin + projection.rank)
            begin += projection.rank

    def output(self, index: int, hidden: Tensor) -> Tensor:
        """Of one projection. The first that is asked for an input computes those of all; the others fetch theirs, and nothing stays."""
        if self.held_for is not hidden or index not in self.held:
            adapters = (*(each.a for each in self.projections), *(each.b for each in self.projections))
            self.held_for, self.held = hidden, dict(enumerate(LoraProjections.apply(hidden, self, *adapters)))
        found = self.held.pop(index)
        if not self.held:
            self.held_for = None
        return found


class LoraProjections(torch.autograd.Function):
    """y_i = W_i x + bias_i + scale * B_i A_i dropout(x) for every projection i of a group, x [..., inputs]."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, group: Group, *adapters: Tensor) -> tuple[Tensor, ...]:
        first, dtype = group.projections[0], group.a.dtype
        narrow = hidden.to(dtype)
        flat = narrow.reshape(-1, narrow.shape[-1])
        dropout = first.dropout
        dropped, mask = (flat, None) if dropout == 0 else torch.native_dropout(flat, dropout, True)
        inner = scaled_product(dropped, group.a.t(), first.scale)
        outputs = []
        for projection, b, span in zip(group.projections, group.bs, group.spans, strict=True):
            output = projection.base.product(narrow)
            output.view(-1, output.shape[-1]).addmm_(inner[:, span], b.t())
            outputs.append(output)
        ctx.save_for_backward(flat, inner, *(() if mask is None else (mask,)))
        ctx.group, ctx.a, ctx.bs, ctx.shape, ctx.dtype, ctx.dropout = group, group.a, group.bs, hidden.shape, hidden.dtype, dropout
        return tuple(outputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        flat, inner, *masks = ctx.saved_tensors
        group: Group = ctx.group
        projections, spans = group.projections, list(group.spans)
        outer = [gradient.reshape(-1, gradient.shape[-1]) for gradient in gradients]
        inside = torch.empty_like(inner)  # the gradient of A x, the scale included
        for gradient, b, span in zip(outer, ctx.bs, spans, strict=True):
            inside[:, span].addmm_(gradient, b, beta=0, alpha=projections[0].scale)
        kept = 1 / (1 - ctx.dropout)
        dropped = torch.ops.aten.native_dropout_backward(flat, masks[0], kept) if masks else flat
        of_a = product_in(projections[0].a.dtype, inside.t(), dropped)
        of_b = [product_in(each.b.dtype, gradient.t(), inner[:, span]) for each, gradient, span in zip(projections, outer, spans, strict=True)]
        of_hidden = None
        if ctx.needs_input_grad[0]:
            of_hidden = inside @ ctx.a
            if masks:
                of_hidden = torch.ops.aten.native_dropout_backward(of_hidden, masks[0], kept)
            for projection, gradient in zip(projections, outer, strict=True):
                of_hidden.addmm_(gradient, projection.base.matrix(gradient.dtype))
            of_hidden = of_hidden.view(ctx.shape).to(ctx.dtype)
        return (of_hidden, None, *(of_a[span] for span in spans), *of_b)


def scaled_product(left: Tensor, right: Tensor, scale: float) -> Tensor:
    """scale * left @ right, rounded once."""
    return left.new_empty(left.shape[0], right.shape[1]).addmm_(left, right, beta=0, alpha=scale)


def product_in(dtype: torch.dtype, left: Tensor, right: Tensor) -> Tensor:
    """left @ right in `dtype`: on a GPU the sums, fp32 anyway, are not rounded to 16 bits on their way to an fp32 gradient."""
    if dtype == left.dtype:
        return left @ right
    return torch.mm(left, right, out_dtype=dtype) if left.is_cuda else (left @ right).to(dtype)


class Casts:
    """The adapters of all groups in the dtype of the computation, side by side, the A matrices of a group stacked.

    They are written anew at the beginning of every forward pass of the decoder, by one kernel over all of them (0.25 GB for rank 16 on an 8B model).
    That is more often than once a step under accumulation, and there is nothing to invalidate: the fused optimizers of torch, those of bitsandbytes
    and DeepSpeed change parameters without raising their version counters, so a copy that asked those would go stale without a word. A backward pass
    reads the copies of the last forward pass; that they still equal the parameters is what every optimizer step after its backward pass means.
    """

    def __init__(self, groups: Sequence[Group]) -> None:
        self.groups = groups
        self.room = torch.empty(0)
        self.parts: list[Tensor] = []

    def refresh(self, dtype: torch.dtype) -> None:
        adapters = [weight.detach() for group in self.groups for side in ("a", "b") for weight in (getattr(each, side) for each in group.projections)]
        if self.room.dtype != dtype or not self.parts or self.room.device != adapters[0].device:
            self.lay_out(adapters, dtype)
        torch._foreach_copy_(self.parts, adapters)

    def lay_out(self, adapters: Sequence[Tensor], dtype: torch.dtype) -> None:
        sizes = [weight.numel() for weight in adapters]
        self.room = torch.empty(sum(sizes), dtype=dtype, device=adapters[0].device)
        self.parts = [part.view(weight.shape) for part, weight in zip(self.room.split(sizes), adapters, strict=True)]
        begin, part = 0, 0
        for group in self.groups:
            count, inputs = len(group.projections), group.projections[0].a.shape[1]
            width = sum(each.rank for each in group.projections)
            group.a = self.room[begin : begin + width * inputs].view(width, inputs)
            group.bs = tuple(self.parts[part + count : part + 2 * count])
            begin, part = begin + sum(sizes[part : part + 2 * count]), part + 2 * count


class FusedForward:
    """Stands for the forward method of one of PEFT's layers, which it keeps for what it does not cover."""

    def __init__(self, layer: LoraLayer, name: str, group: Group, index: int) -> None:
        self.layer, self.names, self.group, self.index = layer, [name], group, index
        self.plain: Callable[..., Tensor] = layer.forward

    def __call__(self, hidden: Tensor, *arguments: Any, **keywords: Any) -> Tensor:
        layer = self.layer
        if arguments or keywords or not torch.is_grad_enabled() or layer.disable_adapters or layer.merged or layer.active_adapters != self.names:
            return self.plain(hidden, *arguments, **keywords)
        return self.group.output(self.index, hidden)


def fuse_adapters(model: PeftModel) -> dict[str, int]:
    """Give the covered layers of `model` one function each, or each group of them; of the others, why not and how many.

    Parameters, their names and what is saved stay PEFT's.
    """
    buffer, left = Buffer(), Counter[str]()
    found: dict[str, Projection] = {}
    for name, layer in model.named_modules():
        if isinstance(layer, LoraLayer):
            reason = uncovered(layer)
            if reason is None:
                adapter = layer.active_adapters[0]
                found[name] = Projection(layer, adapter, base_of(layer.get_base_layer(), buffer))
            else:
                left[reason] += 1
    groups = [Group(tuple(found[name] for name in names)) for names in grouped(found)]
    for group in groups:
        for index, projection in enumerate(group.projections):
            projection.layer.forward = FusedForward(projection.layer, projection.name, group, index)
    if groups:
        refresh_before_every_pass(model, Casts(groups))
    return dict(left)


def refresh_before_every_pass(model: PeftModel, casts: Casts) -> None:
    """The decoder is called by every way into the model; PEFT calls the forward of the model around it without its hooks."""
    first, frozen = casts.groups[0].projections[0], model.get_base_model().dtype

    def refresh(*_: Any) -> None:
        device = first.a.device.type
        if torch.is_grad_enabled():
            casts.refresh(torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else frozen)

    model.get_base_model().base_model.register_forward_pre_hook(refresh)


def grouped(found: dict[str, Projection]) -> list[list[str]]:
    """Names of projections, those together that share their input: one scale and, since every adapter draws its own, no dropout."""
    groups: dict[tuple[object, ...], list[str]] = {}
    for name, projection in found.items():
        parent, _, own = name.rpartition(".")
        together = next((number for number, names in enumerate(SHARING) if own in names), None)
        alone = together is None or drops(projection)
        key = (name,) if alone else (parent, together, projection.scale, projection.a.shape[1])
        groups.setdefault(key, []).append(name)
    return list(groups.values())


def drops(projection: Projection) -> bool:
    return not isinstance(projection.layer.lora_dropout[projection.name], nn.Identity)


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


def base_of(layer: nn.Module, buffer: Buffer) -> Base:
    import bitsandbytes.nn

    if isinstance(layer, bitsandbytes.nn.Linear4bit):
        return FourBitBase(layer, buffer)
    if isinstance(layer, bitsandbytes.nn.Linear8bitLt):
        return EightBitBase(layer, buffer)
    if isinstance(layer, Conv1D):
        return TransposedBase(layer)
    assert isinstance(layer, nn.Linear)
    return PlainBase(layer)
