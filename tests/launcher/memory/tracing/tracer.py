"""Live bytes of one training step of the trainers' own model on fake tensors: nothing is computed, every allocation is seen."""

import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import torch
from bitsandbytes.functional import QuantState
from bitsandbytes.nn import Linear4bit, Params4bit
from peft import get_peft_model
from regimen_tests_gpu_kernels import autocast_as_on_a_gpu, kernels_as_on_a_gpu, masks  # beside this file: conftest.py
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AutoModelForCausalLM, PreTrainedModel

from conf.schema import Freeze, Lora, Qlora, Run
from launcher.memory.activations import Batch
from trainers.loss import compute_loss_in_chunks
from trainers.model import random_model_from_config, trained_dtype
from trainers.regimes.freeze import chosen_layers, train_only
from trainers.regimes.lora import LINEAR_TYPES, adapter_config, target_names

BLOCK = 512  # bytes: what CUDA's caching allocator rounds every allocation up to (c10/cuda/CUDACachingAllocator.h, kMinBlockSize)
NF4_BLOCK, SCALE_BLOCK = 64, 256
LAYERS = ("layers", "transformer.h")
LAST_NORMS = ("model.norm", "transformer.ln_f", "final_layer_norm")


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
        return result


def trace(run: Run, batch: Batch) -> dict[str, int]:
    """The highest live bytes of each phase of a step after the first: the optimizer has its states."""
    model = meta_model(run)
    with FakeTensorMode(allow_non_fake_inputs=True), masks(batch), autocast_as_on_a_gpu(), kernels_as_on_a_gpu():
        materialise(model, run)
        prepare(model, run)
        live = LiveBytes()
        for tensor in (*model.parameters(), *model.buffers(), *quantisation_tensors(model)):
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
    regime = run.regime
    if isinstance(regime, Freeze):
        train_only(model, [*chosen_layers(model, regime.layers), *regime.modules], trained_dtype(run))
    if not isinstance(regime, Lora):
        return model
    targets = target_names(model, regime.targets, LINEAR_TYPES)
    if isinstance(regime, Qlora):
        quantise(model)
    adapted = get_peft_model(model, adapter_config(run, targets), low_cpu_mem_usage=True, autocast_adapter_dtype=False)
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(trained_dtype(run))
    return adapted


def quantise(model: PreTrainedModel) -> None:
    """NF4 layers in place of all linear ones but the head; their contents come with `materialise`."""
    for name, layer in list(model.base_model.named_modules()):
        if type(layer) is nn.Linear:
            with torch.device("meta"):
                quantised = Linear4bit(layer.in_features, layer.out_features, layer.bias is not None, compute_dtype=torch.bfloat16, quant_type="nf4")
            quantised.requires_grad_(False)
            if layer.bias is not None:
                quantised.bias = layer.bias
            model.base_model.set_submodule(name, quantised)
    model.is_loaded_in_4bit = True  # PEFT asks for it before it takes the adapters that are made for such layers


def materialise(model: nn.Module, run: Run) -> None:
    """Fake CPU tensors in place of those without storage; tied weights stay tied."""
    made: dict[int, nn.Parameter] = {}
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                made.setdefault(id(parameter), fake_parameter(parameter, run))
                module._parameters[name] = made[id(parameter)]
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype)
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False  # as the trainers set it


def fake_parameter(parameter: nn.Parameter, run: Run) -> nn.Parameter:
    if not isinstance(parameter, Params4bit):
        return nn.Parameter(torch.empty(parameter.shape, dtype=parameter.dtype), requires_grad=parameter.requires_grad)
    assert isinstance(run.regime, Qlora)
    packed = nn.Parameter(torch.empty((parameter.numel() // 4, 1), dtype=torch.bfloat16), requires_grad=False)
    packed.quant_state = nf4_state(parameter.shape, run.regime.double_quant)  # type: ignore[attr-defined]  # fake tensors allow no subclass
    return packed


def nf4_state(shape: torch.Size, double_quant: bool) -> QuantState:
    """What bitsandbytes keeps beside a packed weight of this shape (functional.py, quantize_4bit)."""
    scales = shape.numel() // NF4_BLOCK
    nested = QuantState(absmax=torch.empty(-(-scales // SCALE_BLOCK)), code=torch.empty(256), blocksize=SCALE_BLOCK, dtype=torch.float32)
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


def quantisation_tensors(model: nn.Module) -> list[torch.Tensor]:
    states = [module.weight.quant_state for module in model.modules() if isinstance(module, Linear4bit)]
    states += [state.state2 for state in states if state.nested]
    return [tensor for state in states for tensor in (state.absmax, state.code, state.offset) if tensor is not None]


def prepare(model: nn.Module, run: Run) -> None:
    """As transformers' Trainer does, and after it trainers/callbacks/frozen_inputs.py."""
    if run.training.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if isinstance(run.regime, Freeze):
        model.disable_input_require_grads()
    model.train()


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
    seen = torch.ones_like(tokens) if batch.masked else None
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
    """A phase of the backward pass begins when the gradient of a layer's output is complete."""
    (layers,) = (module for name, module in model.named_modules() if name.endswith(LAYERS) and isinstance(module, nn.ModuleList))
    (norm,) = (module for name, module in model.named_modules() if name.endswith(LAST_NORMS))
    lowest = min(number for number, layer in enumerate(layers) if any(parameter.requires_grad for parameter in layer.parameters()))
    enter_below(norm, "last layer", live)
    enter_below(layers[-1], "middle layers", live)
    enter_below(layers[lowest + 1], "first layer", live)
    enter_below(layers[0], "end", live)


def enter_below(module: nn.Module, phase: str, live: LiveBytes) -> None:
    """What lies below `module` begins its backward pass when the gradient of its input is complete."""
    module.register_forward_pre_hook(partial(enter_at_gradient, live, phase))


def enter_at_gradient(live: LiveBytes, phase: str, module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
    if inputs[0].requires_grad:
        inputs[0].register_hook(lambda gradient: live.enter(phase))
