"""Live bytes of one training step of the trainers' own model on fake tensors: nothing is computed, every allocation is seen."""

import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from typing import Any
from unittest.mock import patch

import torch
from peft import PeftModel, get_peft_model
from peft.tuners.lora.dora import DoraLinearLayer
from regimen_tests_fused_layers import fuse_layers, fused_as_on_a_gpu
from regimen_tests_gpu_kernels import column_sum_buffer, fuse_loss  # beside this file: conftest.py
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AutoModelForCausalLM, PreTrainedModel

from conf.constants import EXPERTS
from conf.schema import Freeze, Lora, Qlora, Run
from launcher.memory.step.activations import Batch
from trainers.kernels.attention import unmasked
from trainers.kernels.lora import fuse_adapters
from trainers.kernels.loss import compute_loss_fused
from trainers.kernels.parts import fused
from trainers.model.adapted_experts import offer_experts
from trainers.model.build import random_model_from_config, trained_dtype
from trainers.regimes.freeze import chosen_layers, train_only
from trainers.regimes.layers import recompute_lowest
from trainers.regimes.lora import LINEAR_TYPES, adapter_config, target_names
from trainers.regimes.qlora import beside_experts
from trainers.stages.shared.chunked_loss import compute_loss_in_chunks
from trainers.tracing.kernels import autocast_as_on_a_gpu, kernels_as_on_a_gpu, masks
from trainers.tracing.model import base_of, layers_of, materialise
from trainers.tracing.quantised import magnitude, quantise, quantised_as_on_a_gpu

BLOCK = 512  # bytes: what CUDA's caching allocator rounds every allocation up to (c10/cuda/CUDACachingAllocator.h, kMinBlockSize)


class LiveBytes(TorchDispatchMode):
    """Follows every storage from the operation that made it to its end; the highest sum of each phase is kept."""

    def __init__(self) -> None:
        super().__init__()
        self.live: dict[int, int] = {}
        self.now = 0
        self.phase = ""
        self.peaks: dict[str, int] = {}

    def enter(self, phase: str) -> None:
        self.phase = phase
        self.note()

    def note(self) -> None:
        self.peaks[self.phase] = max(self.now, self.peaks.get(self.phase, 0))

    def hold(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, -(-storage.nbytes() // BLOCK) * BLOCK
        if key in self.live or not size:
            return
        self.live[key] = size
        self.now += size
        weakref.finalize(storage, self.release, key)
        self.note()

    def release(self, key: int) -> None:
        self.now -= self.live.pop(key)

    def __torch_dispatch__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self.hold(leaf)
        if func is torch.ops.aten.sum.dim_IntList:
            self.borrow(column_sum_buffer(*args))
        return result

    def borrow(self, size: int) -> None:
        """What a kernel needs while it runs."""
        self.now += size
        self.note()
        self.now -= size


def trace(run: Run, batch: Batch) -> dict[str, int]:
    """The highest live bytes of each phase of a step after the first: the optimizer has its states."""
    model = meta_model(run)
    on_a_gpu = (masks(batch.masked), autocast_as_on_a_gpu(), kernels_as_on_a_gpu(), quantised_as_on_a_gpu())
    with ExitStack() as stack:
        for each in (FakeTensorMode(allow_non_fake_inputs=True), *on_a_gpu, *((fused_as_on_a_gpu(model),) if fused(run) else ())):
            stack.enter_context(each)
        beside = materialise(model, run.regime.double_quant if isinstance(run.regime, Qlora) else None)
        prepare(model, run)
        live = LiveBytes()
        for tensor in (*model.parameters(), *model.buffers(), *beside):
            live.hold(tensor)
        with live:
            live.enter("start")
            optimizer = stepped_optimizer(model)
            one_step(run, model, optimizer, batch, live)
    return live.peaks


def meta_model(run: Run) -> nn.Module:
    """As the regime prepares it, but without storage: PEFT cannot work on fake tensors."""
    with torch.device("meta"):
        model: PreTrainedModel = random_model_from_config(run, AutoModelForCausalLM)
    if run.training.loss == "chunked":
        compute_loss_in_chunks(model)
    if fused(run):
        fuse_layers(model, adapted=isinstance(run.regime, Lora))
    if run.training.loss == "fused":
        compute_loss_fused(model) if fused(run) else fuse_loss(model)
    recompute_lowest(model, run)
    regime = run.regime
    if isinstance(regime, Freeze):
        train_only(model, [*chosen_layers(model, regime.layers), *regime.modules], trained_dtype(run))
    if not isinstance(regime, Lora):
        return model
    targets = target_names(model, regime.targets, LINEAR_TYPES)
    if isinstance(regime, Qlora):
        quantise(model, regime.bits)
        targets = beside_experts(model, targets, regime.targets)
    parameters = offer_experts(model) if EXPERTS in regime.targets else None
    with patch.object(DoraLinearLayer, "update_layer", magnitude):
        adapted = get_peft_model(model, adapter_config(run, targets, parameters), low_cpu_mem_usage=True, autocast_adapter_dtype=False)
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(trained_dtype(run))
    return adapted


def prepare(model: nn.Module, run: Run) -> None:
    """As transformers' Trainer does, and after it trainers/callbacks/frozen_inputs.py."""
    if run.training.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if isinstance(run.regime, Freeze):
        model.disable_input_require_grads()
    model.train()
    if fused(run) and isinstance(model, PeftModel):
        fuse_adapters(model, run.training.fp8)


def stepped_optimizer(model: nn.Module) -> torch.optim.Optimizer:
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, fused=True)
    for parameter in trained:
        parameter.grad = torch.empty_like(parameter)
    optimizer.step()
    optimizer.zero_grad()
    return optimizer


def one_step(run: Run, model: nn.Module, optimizer: torch.optim.Optimizer, batch: Batch, live: LiveBytes) -> None:
    watch_backward(model, live)
    tokens = torch.randint(0, 100, (batch.samples, batch.length))
    seen = torch.ones_like(tokens) if batch.masked else unmasked() if fused(run) else None
    for _ in range(run.training.accumulation or 1):
        live.enter("forward")
        with autocast(run):
            loss = model(input_ids=tokens, labels=tokens, attention_mask=seen, use_cache=False).loss
        live.enter("loss")
        loss.backward()
        del loss  # as the Trainer does, which keeps a detached copy: the graph holds the embedding's output
    live.enter("step")
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()


def autocast(run: Run) -> AbstractContextManager[Any]:
    return torch.autocast("cpu", dtype=torch.bfloat16, enabled=run.training.precision == "bf16_amp")


def watch_backward(model: nn.Module, live: LiveBytes) -> None:
    """A phase of the backward pass begins when the gradient of a layer's output is complete; the end, when that of the first one's input is."""
    base = base_of(model)
    layers = layers_of(base, base.config.num_hidden_layers)
    lowest = min(number for number, layer in enumerate(layers) if any(parameter.requires_grad for parameter in layer.parameters()))
    layers[-1].register_forward_hook(lambda module, inputs, answer: enter_at_gradient(live, "last layer", first_of(answer)))
    enter_below(layers[-1], "middle layers", live)
    enter_below(layers[lowest + 1], "first layer", live)
    enter_below(layers[0], "end", live)


def enter_below(module: nn.Module, phase: str, live: LiveBytes) -> None:
    """What lies below `module` begins its backward pass when the gradient of its input is complete."""
    module.register_forward_pre_hook(
        lambda _, inputs, named: enter_at_gradient(live, phase, inputs[0] if inputs else named["hidden_states"]), with_kwargs=True
    )


def first_of(answer: torch.Tensor | tuple[torch.Tensor, ...]) -> torch.Tensor:
    return answer if isinstance(answer, torch.Tensor) else answer[0]


def enter_at_gradient(live: LiveBytes, phase: str, states: torch.Tensor) -> None:
    if states.requires_grad:
        states.register_hook(lambda gradient: live.enter(phase))
