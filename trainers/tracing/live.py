"""What is alive while a step runs: every storage from the operation that made it to its end, in the order of things."""

import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

MADE, FREED, GRADIENT, SUM, ATTENTION, PHASE = "made", "freed", "gradient", "sum", "attention", "phase"

# Phases. The forward pass of a layer and the backward pass below its output have its number behind their names.
START, LAYER, NORM, KEPT, BELOW, END, EMBEDDING = "start", "layer", "norm", "kept", "below", "end", "embedding"

# Their kernels on a GPU need room beside what they answer (launcher/memory/step/traced_step.py).
ATTENTION_BACKWARDS = (
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward.default,
    torch.ops.aten._scaled_dot_product_efficient_attention_backward.default,
)


@dataclass
class Recording:
    """Of one batch size. Of two sizes the events are the same ones, and only the bytes differ."""

    events: list[tuple[str, int | str]] = field(default_factory=list)  # and the number of a storage, elements, columns or the name of a phase
    sizes: list[int] = field(default_factory=list)  # bytes of every storage, by its number
    rows: list[int] = field(default_factory=list)  # of every sum over rows


class Recorder(TorchDispatchMode):
    """Weights are no part of a recording, and a gradient only until it is complete: then it counts as elements that have one."""

    def __init__(self, model: nn.Module, embedding: int) -> None:
        """`embedding`: elements of the one of the words."""
        super().__init__()
        self.embedding = embedding
        self.recording = Recording()
        self.live: dict[int, int] = {}
        self.ignored = {tensor.untyped_storage()._cdata for tensor in (*model.parameters(), *model.buffers())}
        self.backward = False  # layers that are computed again enter no phase
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.register_post_accumulate_grad_hook(self.complete)

    def enter(self, phase: str) -> None:
        self.recording.events.append((PHASE, phase))

    def hold(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self.live or key in self.ignored or not storage.nbytes():
            return
        number = len(self.recording.sizes)
        self.recording.sizes.append(storage.nbytes())
        self.recording.events.append((MADE, number))
        self.live[key] = number
        weakref.finalize(storage, self.release, key)

    def ignore(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        self.ignored.add(storage._cdata)
        weakref.finalize(storage, self.ignored.discard, storage._cdata)

    def release(self, key: int) -> None:
        number = self.live.pop(key, None)
        if number is not None:
            self.recording.events.append((FREED, number))

    def complete(self, parameter: torch.Tensor) -> None:
        assert parameter.grad is not None
        self.release(parameter.grad.untyped_storage()._cdata)
        self.recording.events.append((GRADIENT, parameter.numel()))

    def __torch_dispatch__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func is torch.ops.aten.embedding_dense_backward.default:
            self.ignore(result)  # the launcher adds it: launcher/memory/step/step_phases.py, end_terms
            if result.numel() == self.embedding:
                self.enter(EMBEDDING)
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self.hold(leaf)
        if func in ATTENTION_BACKWARDS:
            self.recording.events.append((ATTENTION, 0))
        elif func is torch.ops.aten.sum.dim_IntList:
            self.note_sum(*args[:2])
        return result

    def note_sum(self, values: torch.Tensor, dims: list[int] | None) -> None:
        """Over all dimensions but the last, for which a GPU needs a buffer."""
        last = values.dim() - 1
        if dims is not None and values.numel() and sorted(dim % values.dim() for dim in dims) == [*range(last)]:
            self.recording.rows.append(values.numel() // values.shape[last])
            self.recording.events.append((SUM, values.shape[last]))
