"""The first layers of an architecture as a regime trains them, on fake tensors."""

from collections import Counter
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora.dora import DoraLinearLayer
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from conf.constants import EXPERTS
from conf.traces import Adapter, TraceSettings
from trainers.model.adapted_experts import offer_experts
from trainers.regimes.lora import LINEAR_TYPES, target_names
from trainers.regimes.qlora import beside_experts
from trainers.tracing.quantised import fill, magnitude, quantise

DTYPES = {2: torch.bfloat16, 4: torch.float32}
FEWEST, MOST = 3, 12  # layers that are traced: the first, the last and one between them; all kinds of layers


@dataclass(frozen=True)
class Depth:
    """Which layers stand for all."""

    traced: int
    kinds: tuple[int, ...]  # of every layer of the whole model
    missing: Counter[int]  # layers of each kind that are not traced
    buffers: int  # bytes of tensors of the whole model that are no weights


def layers_of(model: nn.Module, count: int) -> nn.ModuleList:
    """The list of a model's layers.

    Raises:
        ValueError: for a model that has no such list.
    """
    lists = {name: module for name, module in model.named_modules() if isinstance(module, nn.ModuleList) and len(module) == count}
    if not lists:
        raise ValueError(f"it has no list of {count} layers")
    return lists[min(lists, key=lambda name: (name.count("."), name))]


def depth_of(config: PreTrainedConfig) -> Depth:
    """
    Raises:
        ValueError: where no few first layers are like all.
    """
    count = config.num_hidden_layers
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    layers = layers_of(model, count)
    buffers = sum(buffer.nbytes for buffer in {id(buffer): buffer for buffer in model.buffers()}.values())
    lists = [value for value in config.to_dict().values() if isinstance(value, list) and len(value) == count]
    shapes = [
        (tuple((name, tuple(weight.shape)) for name, weight in layer.named_parameters()), tuple(str(values[number]) for values in lists))
        for number, layer in enumerate(layers)
    ]
    numbers = {shape: number for number, shape in enumerate(dict.fromkeys(shapes))}
    kinds = tuple(numbers[shape] for shape in shapes)
    for traced in range(min(FEWEST, count), min(MOST, count) + 1):
        inner = set(kinds[1 : traced - 1]) if traced < count else set(kinds)
        missing = Counter(kinds) - Counter(kinds[:traced])
        if kinds[traced - 1] == kinds[-1] and set(missing) <= inner:
            return Depth(traced, kinds, missing, buffers)
    raise ValueError(f"no {min(MOST, count)} first layers of its {count} are like all of them")


def shortened(config: PreTrainedConfig, traced: int) -> PreTrainedConfig:
    """The configuration of a model of the first layers."""
    count, values = config.num_hidden_layers, config.to_dict()
    own = config.attribute_map.get("num_hidden_layers", "num_hidden_layers")
    cut = {name: value[:traced] if isinstance(value, list) and len(value) == count else value for name, value in values.items()}
    return AutoConfig.for_model(**{**cut, own: traced})


def meta_model(config: PreTrainedConfig, settings: TraceSettings) -> nn.Module:
    """Without storage: PEFT cannot work on fake tensors."""
    wide = settings.autocast and settings.adapter is None
    dtype = DTYPES[4 if wide else settings.compute]
    with torch.device("meta"):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(
            config, dtype=dtype, attn_implementation=settings.attention, trust_remote_code=False
        )
    return model if settings.adapter is None else adapted(model, settings.adapter, DTYPES[4 if settings.autocast else settings.compute])


def adapted(model: PreTrainedModel, adapter: Adapter, dtype: torch.dtype) -> nn.Module:
    targets = target_names(model, list(adapter.targets), LINEAR_TYPES)
    parameters = None
    if adapter.bits < 16:
        quantise(model, adapter.bits)
        targets = beside_experts(model, targets, adapter.targets)
        parameters = offer_experts(model) if EXPERTS in adapter.targets else None
    shape = {"r": adapter.rank, "lora_dropout": adapter.dropout, "use_dora": adapter.dora}
    config = LoraConfig(task_type="CAUSAL_LM", **shape, target_modules=targets, target_parameters=parameters)
    with patch.object(DoraLinearLayer, "update_layer", magnitude):
        whole = get_peft_model(model, config, low_cpu_mem_usage=True, autocast_adapter_dtype=False)
    for parameter in whole.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(dtype)
    return whole


def materialise(model: nn.Module, double_quant: bool | None) -> list[torch.Tensor]:
    """Fake CPU tensors in place of those without storage; tied weights stay tied. What quantised layers hold beside their weights; `double_quant` is
    None where nothing is quantised."""
    made: dict[int, nn.Parameter] = {}
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                made.setdefault(id(parameter), fake_parameter(parameter))
                module._parameters[name] = made[id(parameter)]
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype)
    return [] if double_quant is None else fill(model, double_quant)


def fake_parameter(parameter: nn.Parameter) -> nn.Parameter:
    return nn.Parameter(torch.empty(parameter.shape, dtype=parameter.dtype), requires_grad=parameter.requires_grad)


def base_of(model: nn.Module) -> Any:
    """The model inside of PEFT's."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model
