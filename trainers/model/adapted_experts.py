"""Adapters of packed experts, under the names that PEFT gives those of stacked parameters: what is saved loads on the plain model.

PEFT adapts parameters (`target_parameters`), and packed experts are none. Here they are offered to it as if they were, and its ParamWrapper hands its
factors to the products of trainers/model/experts.py, where it would add their product to all experts of a layer.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from types import MethodType
from typing import Any

import torch
from peft.tuners.lora.layer import ParamWrapper
from torch import nn

from trainers.model.experts import Adapter, PackedExperts, expert_modules


class Offered:
    """What PEFT reads of a parameter: its shape, dtype and device; and where it lies, by which DeepSpeed's checkpoints tell shared weights."""

    def __init__(self, packed: PackedExperts, transposed: bool) -> None:
        sides = (packed.inputs, packed.outputs) if transposed else (packed.outputs, packed.inputs)
        self.shape, self.dtype = torch.Size((packed.experts, *sides)), packed.dtype
        self.device = next((tensor.device for tensor in packed.stacked.values()), torch.device("meta"))
        self.requires_grad = False
        self.packed = packed

    def data_ptr(self) -> int:
        return next((tensor.data_ptr() for tensor in self.packed.stacked.values()), 0)


def offer_experts(model: nn.Module) -> list[str]:
    """Let PEFT find the packed experts of `model` by names, which are returned."""
    names = []
    for name, module in expert_modules(model).items():
        module.named_parameters = MethodType(named_parameters, module)  # type: ignore[method-assign]
        packed = dict(module.named_parameters(recurse=False))
        names += [f"{name}.{key}" for key, part in packed.items() if isinstance(part, Offered)]
        vars(module)["W_q"] = next(iter(packed.values()))  # as in HQQ's layers: here PEFT looks for the device where a module has no parameter
    hand_over_factors()
    return names


def named_parameters(self: Any, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True) -> Iterator[tuple[str, Any]]:
    """torch.nn.Module.named_parameters, and without its children the packed experts too, in the order of their parameters."""
    yield from nn.Module.named_parameters(self, prefix, recurse, remove_duplicate)
    if not recurse:
        yield from ((key, Offered(part, self.is_transposed)) for key, part in self.named_children() if isinstance(part, PackedExperts))


def hand_over_factors() -> None:
    """Have PEFT's wrapper of a parameter treat packed experts otherwise, once."""
    if ParamWrapper._activate_lora.__name__ == "activating":
        return
    find, activate = ParamWrapper.get_param, ParamWrapper._activate_lora

    def offered(self: ParamWrapper) -> Any:
        found = find(self)
        return Offered(found, self.get_base_layer().is_transposed) if isinstance(found, PackedExperts) else found

    def activating(self: ParamWrapper, active_adapters: list[str]) -> AbstractContextManager[None]:
        found = self.get_param()
        return adapting(self, found.packed, active_adapters) if isinstance(found, Offered) else activate(self, active_adapters)

    ParamWrapper.get_param, ParamWrapper._activate_lora = offered, activating


@contextmanager
def adapting(wrapper: ParamWrapper, packed: PackedExperts, active: list[str]) -> Iterator[None]:
    """Only one adapter learns in a run (trainers/regimes/__init__.py)."""
    (name,) = [name for name in active if name in wrapper.lora_A] or [None]
    packed.adapter = None if name is None else adapter_of(wrapper, packed, name)
    try:
        yield
    finally:
        packed.adapter = None


def adapter_of(wrapper: ParamWrapper, packed: PackedExperts, name: str) -> Adapter:
    """PEFT keeps A as [experts * rank, inputs], and B as [outputs, rank * experts] (ParamWrapper.get_delta_factors)."""
    first, second = wrapper.lora_A[name].weight, wrapper.lora_B[name].weight
    into = first.to(packed.dtype).view(packed.experts, -1, packed.inputs).transpose(1, 2)
    out = second.to(packed.dtype).view(packed.outputs, -1, packed.experts).permute(2, 1, 0)
    return Adapter(into, out.contiguous(), wrapper.scaling[name])
