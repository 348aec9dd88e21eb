"""Records the forward and backward pass of a few layers; the head and the loss are not part of it."""

import gc
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import PreTrainedConfig

from conf.traces import TraceSettings
from trainers.tracing.kernels import autocast_as_on_a_gpu, kernels_as_on_a_gpu, masks
from trainers.tracing.live import BELOW, END, KEPT, LAYER, NORM, START, Recorder, Recording
from trainers.tracing.model import base_of, layers_of, materialise, meta_model
from trainers.tracing.quantised import quantised_as_on_a_gpu


class Sink(torch.autograd.Function):
    """Takes the last hidden states as a loss does that keeps nothing, and gives them a gradient."""

    @staticmethod
    def forward(ctx: Any, states: torch.Tensor) -> torch.Tensor:
        ctx.shape, ctx.dtype = states.shape, states.dtype
        return torch.empty(())

    @staticmethod
    def backward(ctx: Any, *_: torch.Tensor) -> torch.Tensor:
        return torch.empty(ctx.shape, dtype=ctx.dtype)


def record(config: PreTrainedConfig, settings: TraceSettings, samples: int, length: int) -> tuple[Recording, int]:
    """The recording, and the bytes of an element of the last hidden states."""
    model = meta_model(config, settings)
    adapter = settings.adapter
    on_a_gpu = (masks(settings.masked), autocast_as_on_a_gpu(), kernels_as_on_a_gpu(), quantised_as_on_a_gpu())
    with ExitStack() as stack:
        for each in (FakeTensorMode(allow_non_fake_inputs=True), *on_a_gpu):
            stack.enter_context(each)
        beside = materialise(model, adapter.double_quant if adapter is not None and adapter.bits < 16 else None)
        if settings.checkpointing:
            base_of(model).gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.train()
        tokens = torch.randint(0, 100, (samples, length))
        given = {"attention_mask": torch.ones_like(tokens)} if settings.masked else {}
        if settings.packed:
            given["position_ids"] = torch.arange(length).expand(samples, length).contiguous()
        recorder = Recorder(model, base_of(model).get_input_embeddings().weight.numel())
        recorder.ignored |= {tensor.untyped_storage()._cdata for tensor in (*beside, tokens, *given.values())}
        watch(layers_of(base_of(model), config.num_hidden_layers), recorder)
        gc.collect()
        gc.disable()  # what is freed when must not depend on it
        try:
            with recorder:
                element = one_pass(base_of(model).base_model, settings, recorder, {"input_ids": tokens, **given})
        finally:
            gc.enable()
    return recorder.recording, element


def one_pass(body: nn.Module, settings: TraceSettings, recorder: Recorder, given: dict[str, torch.Tensor]) -> int:
    recorder.enter(START)
    with autocast(settings):
        states = body(**given, use_cache=False).last_hidden_state
    element: int = states.element_size()
    sunk = Sink.apply(states)
    del states
    recorder.enter(KEPT)
    recorder.backward = True
    sunk.backward()
    return element


def autocast(settings: TraceSettings) -> AbstractContextManager[Any]:
    return torch.autocast("cpu", dtype=torch.bfloat16, enabled=settings.autocast)


def watch(layers: nn.ModuleList, recorder: Recorder) -> None:
    """A phase of the forward pass begins when a layer does, one of the backward pass when the gradient of a layer's output is complete."""
    for number, layer in enumerate(layers):
        layer.register_forward_pre_hook(partial(enter_layer, recorder, number), with_kwargs=True)
        layer.register_forward_hook(partial(leave_layer, recorder, number, len(layers)))


def enter_layer(recorder: Recorder, number: int, module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
    if not recorder.backward:
        states = inputs[0] if inputs else named["hidden_states"]
        recorder.enter(f"{LAYER} {number}")
        if number == 0 and states.requires_grad:
            states.register_hook(entering(recorder, END))


def leave_layer(recorder: Recorder, number: int, count: int, module: nn.Module, inputs: tuple[Any, ...], answer: Any) -> None:
    if not recorder.backward:
        states = answer if isinstance(answer, torch.Tensor) else answer[0]
        states.register_hook(entering(recorder, f"{BELOW} {number}"))
        if number == count - 1:
            recorder.enter(NORM)


def entering(recorder: Recorder, phase: str) -> Callable[[torch.Tensor], None]:
    def enter(gradient: torch.Tensor) -> None:
        recorder.enter(phase)

    return enter
