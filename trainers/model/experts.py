"""Packed experts of a mixture: their products, forwards and backwards, with a few of them unpacked at a time.

transformers 5 stacks the experts of a layer in parameters of three dimensions, which bitsandbytes and HQQ leave as they are. Here `PackedExperts`
takes the place of such a parameter, and `forward_packed` that of the module's forward pass. Nothing unpacked outlives a product: the backward pass
unpacks again, so that autograd keeps what it would keep of frozen experts in 16 bits, and no weight.
"""

from collections.abc import Callable
from dataclasses import dataclass
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from transformers.integrations.moe import _grouped_mm

from conf.constants import EXPERT_BUFFER
from conf.mixtures import STACKED
from trainers.model.packing import Form, Packed


@dataclass(frozen=True)
class Adapter:
    """Of every expert a pair of factors (arXiv:2106.09685)."""

    into: Tensor  # [experts, inputs, rank]
    out: Tensor  # [experts, rank, outputs]
    scaling: float

    def product(self, rows: Tensor, ends: Tensor) -> Tensor:
        """rows [copies, inputs], sorted by expert, to [copies, outputs]."""
        return _grouped_mm(_grouped_mm(rows, self.into, offs=ends), self.out, offs=ends) * self.scaling


class PackedExperts(nn.Module):
    """The matrices [experts, outputs, inputs] of one projection of a layer.

    Each is packed in `parts` of its outputs, as they stand in files: gate and up apart. The packed tensors are no parameters and no buffers, as those
    beside bitsandbytes' weights are none: nothing casts, broadcasts or saves them.
    """

    def __init__(self, experts: int, outputs: int, inputs: int, parts: int, form: Form, dtype: torch.dtype) -> None:
        """Raises ValueError where a part has no whole number of blocks."""
        super().__init__()
        if outputs // parts * inputs % form.block:
            raise ValueError(f"one expert's matrix has {outputs // parts} x {inputs} weights, which is not a multiple of {form.block}")
        self.experts, self.outputs, self.inputs, self.parts = experts, outputs, inputs, parts
        self.form, self.dtype = form, dtype
        self.stacked: Packed = {}
        self.adapter: Adapter | None = None  # while a forward pass goes through adapters (trainers/model/adapted_experts.py)
        self.missing = {(expert, part) for expert in range(experts) for part in range(parts)}

    def put(self, expert: int, part: int, matrix: Tensor) -> None:
        """Pack [outputs / parts, inputs] of one expert, where the matrix lies."""
        packed = self.form.pack(matrix.to(self.dtype).contiguous(), self.dtype)
        for name, tensor in packed.items():
            if name not in self.stacked:
                self.stacked[name] = tensor.new_zeros((self.experts * self.parts, *tensor.shape))
            self.stacked[name][expert * self.parts + part] = tensor
        self.missing.discard((expert, part))

    def unpacked(self, first: int, last: int) -> Tensor:
        """[last - first, outputs, inputs]: the matrices of these experts."""
        chosen = {name: tensor[first * self.parts : last * self.parts] for name, tensor in self.stacked.items()}
        return self.form.unpack(chosen, torch.Size((last - first, self.outputs, self.inputs)), self.dtype)

    def groups(self) -> list[tuple[int, int]]:
        """First and last expert of those that are unpacked together."""
        together = max(EXPERT_BUFFER // (self.outputs * self.inputs * self.dtype.itemsize), 1)
        return [(first, min(first + together, self.experts)) for first in range(0, self.experts, together)]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "PackedExperts":
        """Packed tensors move to another device; as bytes they are out of reach of a cast."""
        self.stacked = {name: moved(tensor, fn) for name, tensor in self.stacked.items()}
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self


def moved(tensor: Tensor, fn: Callable[[Tensor], Tensor]) -> Tensor:
    return fn(tensor.view(torch.uint8)).view(tensor.dtype)


class PackedProduct(torch.autograd.Function):
    """rows [copies, inputs], sorted by expert, times the matrix of each row's expert: [copies, outputs]. Keeps neither rows nor weights."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, ends: Tensor, bounds: tuple[int, ...], packed: PackedExperts) -> Tensor:
        ctx.ends, ctx.bounds, ctx.packed = ends, bounds, packed
        return product(rows, ends, bounds, packed, packed.outputs, transposed=True)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        return product(gradients[0], ctx.ends, ctx.bounds, ctx.packed, ctx.packed.inputs, transposed=False), None, None, None


def product(rows: Tensor, ends: Tensor, bounds: tuple[int, ...], packed: PackedExperts, width: int, *, transposed: bool) -> Tensor:
    """[copies, width]; `bounds` are 0 and the end of each expert's rows, `ends` the ends on the device. Experts without rows stay packed where no
    other of their group has any."""
    result = rows.new_empty(len(rows), width)
    for first, last in packed.groups():
        begin, end = bounds[first], bounds[last]
        if begin == end:
            continue
        matrices = packed.unpacked(first, last)
        matrices = matrices.transpose(1, 2) if transposed else matrices
        if last - first == 1:
            torch.mm(rows[begin:end], matrices[0], out=result[begin:end])
        else:
            result[begin:end] = _grouped_mm(rows[begin:end], matrices, offs=ends[first:last] - begin)
        del matrices  # before the next group is unpacked
    return result


def forward_packed(self: Any, hidden_states: Tensor, top_k_index: Tensor, top_k_weights: Tensor) -> Tensor:
    """transformers/integrations/moe.py, grouped_mm_experts_forward, on packed experts: hidden_states [tokens, hidden] to [tokens, hidden]."""
    tokens, top_k = top_k_index.shape
    chosen, order = torch.sort(top_k_index.reshape(-1))
    numbers = torch.arange(self.down_proj.experts, device=chosen.device)
    ends = torch.searchsorted(chosen, numbers, right=True, out_int32=True)
    bounds = bounds_of(ends, len(chosen))

    def multiply(rows: Tensor, name: str) -> Tensor:
        packed = getattr(self, name)
        rows = rows.to(packed.dtype)
        answers = PackedProduct.apply(rows, ends, bounds, packed)
        if packed.adapter is not None:
            answers = answers + packed.adapter.product(rows, ends)
        return answers + getattr(self, f"{name}_bias")[chosen].to(answers.dtype) if self.has_bias else answers

    made = multiply(hidden_states[order // top_k], "gate_up_proj" if self.has_gate else "up_proj")
    made = self._apply_gate(made) if self.has_gate else self.act_fn(made)
    made = multiply(made, "down_proj")
    if self.has_post_expert_norm:
        made = self.post_expert_norm(made)
    made = made * top_k_weights.reshape(-1)[order].unsqueeze(-1)
    back = torch.empty_like(order)
    back[order] = torch.arange(len(order), device=order.device)
    return made[back].view(tokens, top_k, -1).sum(dim=1).to(hidden_states.dtype)


def bounds_of(ends: Tensor, copies: int) -> tuple[int, ...]:
    """Where each expert's rows begin and, last, where all of them end: the host waits for the router here."""
    return (0, *ends.tolist())


def expert_modules(model: nn.Module) -> dict[str, nn.Module]:
    """The modules, by name, whose experts can be packed: those of transformers' common interface (integrations/moe.py)."""
    return {name: module for name, module in model.named_modules() if "is_transposed" in vars(module) and "has_gate" in vars(module)}


def stacked_parameters(experts: nn.Module) -> dict[str, nn.Parameter]:
    """By name, of [experts, outputs, inputs], or [experts, inputs, outputs] where the module is transposed."""
    return {name: experts.get_parameter(name) for name in STACKED if name in experts._parameters}


def parts_of(experts: Any, name: str) -> int:
    """Gate and up lie one behind the other in a module that is concatenated."""
    return 2 if name == "gate_up_proj" and experts.is_concatenated and not experts.is_transposed else 1


def take_parameters(experts: Any, form: Form, dtype: torch.dtype) -> None:
    """Put packed experts, which wait for their contents, in place of the stacked parameters, in place."""
    for name, parameter in stacked_parameters(experts).items():
        count, *sides = parameter.shape
        outputs, inputs = reversed(sides) if experts.is_transposed else sides
        delattr(experts, name)
        setattr(experts, name, PackedExperts(count, outputs, inputs, parts_of(experts, name), form, dtype))
    experts.forward = MethodType(forward_packed, experts)


def give_back_parameters(experts: Any, dtype: torch.dtype, device: torch.device | None) -> None:
    """The opposite, in place: parameters of the values that the packed experts stand for, on `device`, or where they are."""
    for name in [name for name in STACKED if isinstance(getattr(experts, name, None), PackedExperts)]:
        packed = getattr(experts, name)
        whole = torch.cat([packed.unpacked(*group).to(device=device, dtype=dtype) for group in packed.groups()])
        delattr(experts, name)
        setattr(experts, name, nn.Parameter(whole.transpose(1, 2).contiguous() if experts.is_transposed else whole, requires_grad=False))
    for name in ("forward", "named_parameters", "W_q"):
        vars(experts).pop(name, None)
