"""Two-bit weights by HQQ. transformers 5.23 refuses to load with an HqqConfig, so the linear layers are replaced here."""

import torch
from hqq.core.quantize import BaseQuantizeConfig, HQQLinear
from torch import nn
from transformers import PreTrainedModel

from conf.constants import HQQ_GROUP
from trainers.census import is_router
from trainers.model.packing import HQQ_AXIS


def quantise_2bit(model: PreTrainedModel, compute_dtype: torch.dtype, device: torch.device | str) -> PreTrainedModel:
    """Replace every nn.Linear inside the decoder by 2-bit weights on `device`, in place; the output head stays as it is.

    This is how the base of an adapter that was trained with regime=qlora regime.bits=2 is made before it is loaded:

        base = AutoModelForCausalLM.from_pretrained(FOLDER, dtype=torch.bfloat16)
        model = PeftModel.from_pretrained(quantise_2bit(base, torch.bfloat16, "cuda"), ADAPTER)

    The same weights give the same 2 bits on the same kind of device; HQQ searches in fp16 on a GPU and in fp32 on a CPU.

    Raises:
        ValueError: when the model has no nn.Linear, or the size of one is not a multiple of the group size.
    """
    layers = [(name, module) for name, module in model.base_model.named_modules() if isinstance(module, nn.Linear) and not is_router(module)]
    if not layers:
        raise ValueError(f"regime.bits=2: {type(model).__name__} has no nn.Linear to quantise. Set regime.bits=4 or 8.")
    for name, layer in layers:
        if layer.weight.numel() % HQQ_GROUP:
            raise ValueError(
                f"regime.bits=2: {name} has {layer.weight.numel()} weights, which is not a multiple of {HQQ_GROUP}. Set regime.bits=4 or 8."
            )
    for name, layer in layers:  # one after the other, so that a GPU never holds more than one unquantised layer
        model.base_model.set_submodule(name, two_bit_layer(layer, compute_dtype, device))
    return model.to(device)


def two_bit_layer(layer: nn.Linear, compute_dtype: torch.dtype, device: torch.device | str) -> HQQLinear:
    config = BaseQuantizeConfig(nbits=2, group_size=HQQ_GROUP, axis=HQQ_AXIS)
    return HQQLinear(layer, config, compute_dtype=compute_dtype, device=str(device))
