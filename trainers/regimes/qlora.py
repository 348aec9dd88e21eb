"""LoRA on a quantised base (arXiv:2305.14314): 8 and 4 bits by bitsandbytes, 2 bits by HQQ."""

from collections.abc import Sequence
from typing import Any

import bitsandbytes
import torch
from accelerate import PartialState
from bitsandbytes.autograd._functions import MatMul8bitLt
from peft.utils.transformers_weight_conversion import _MODEL_TO_CONVERSION_PATTERN, _MOE_TARGET_MODULE_MAPPING
from torch import nn
from transformers import BitsAndBytesConfig, PreTrainedModel

from conf.constants import ALL_LINEAR, EXPERTS
from conf.schema import Qlora, Run
from trainers.model.adapted_experts import offer_experts
from trainers.model.build import ModelClass, load_model, weight_dtype
from trainers.model.experts import PackedExperts
from trainers.model.mixtures import has_experts, load_mixture
from trainers.model.prepared import PreparedModel
from trainers.regimes.dequantised import with_plain_layers
from trainers.regimes.lora import LINEAR_TYPES, adapter_config, target_names


def prepare_model(run: Run, model_class: ModelClass) -> PreparedModel:
    """Raises ValueError for other numbers of bits, and when one of regime.targets is not a linear layer of the model."""
    assert isinstance(run.regime, Qlora)
    loaders = {8: load_8bit, 4: load_4bit, 2: load_2bit}
    if run.regime.bits not in loaders:
        raise ValueError(f"regime.bits={run.regime.bits} is not supported. Choose 8 or 4 (bitsandbytes) or 2 (HQQ).")
    model = loaders[run.regime.bits](run, model_class)
    if run.regime.dequantised:
        model = with_plain_layers(model, weight_dtype(run))
    # No prepare_model_for_kbit_training: it would make embeddings, norms and head fp32, 2 GiB more with 128k tokens of width 4096.
    targets = target_names(model, run.regime.targets, quantised_types(run.regime.bits))
    parameters = offer_experts(model) if EXPERTS in run.regime.targets else None
    return PreparedModel(model, adapter_config(run, beside_experts(model, targets, run.regime.targets), parameters))


def beside_experts(model: PreTrainedModel, names: list[str], asked: Sequence[str]) -> list[str]:
    """Those of `names` that PEFT does not take for routed experts, which are packed and have adapters only as `experts`.

    PEFT reads targets of some names as the experts' own, which were linear layers of such names in transformers 4, even where dense layers or shared
    experts have them too (peft/utils/transformers_weight_conversion.py, _convert_peft_config_moe).

    Raises:
        ValueError: when regime.targets names them, or nothing else.
    """
    family = _MODEL_TO_CONVERSION_PATTERN.get(model.config.model_type, "")
    routed = set(_MOE_TARGET_MODULE_MAPPING.get(family, ())) if any(isinstance(module, PackedExperts) for module in model.modules()) else set()
    kept = [name for name in names if name.rsplit(".", 1)[-1] not in routed]
    if (not kept and EXPERTS not in asked) or (ALL_LINEAR not in asked and len(kept) < len(names)):
        raise ValueError(
            f"regime.targets=[{','.join(asked)}]: PEFT takes {', '.join(sorted(routed))} of {model.config.model_type} for its routed experts, which "
            f"are packed under regime=qlora. Their adapters are asked for by one word: regime.targets=[q_proj,v_proj,experts]. Or set regime=lora."
        )
    return kept


def load_8bit(run: Run, model_class: ModelClass) -> PreTrainedModel:
    keep_no_inputs_of_frozen_weights()
    return load_quantised(run, model_class, BitsAndBytesConfig(load_in_8bit=True))


def load_quantised(run: Run, model_class: ModelClass, quantization: BitsAndBytesConfig) -> PreTrainedModel:
    return load_mixture(run, model_class, quantization) if has_experts(run) else load_model(run, model_class, quantization)


def keep_no_inputs_of_frozen_weights() -> None:
    """bitsandbytes 0.50 keeps the input of every 8-bit layer for the gradient of its weight, which a frozen weight never gets.

    It keeps them as plain attributes, out of reach of gradient checkpointing: 1.5 GiB for Qwen2.5-0.5B at 4 x 1024 tokens on an H200.
    """
    if MatMul8bitLt.forward.__name__ == "forgetting":
        return
    original = MatMul8bitLt.forward

    def forgetting(ctx: Any, *inputs: Any) -> torch.Tensor:
        output: torch.Tensor = original(ctx, *inputs)
        if not ctx.needs_input_grad[1]:
            ctx.tensors = (None, None, None)
        return output

    MatMul8bitLt.forward = staticmethod(forgetting)


def load_4bit(run: Run, model_class: ModelClass) -> PreTrainedModel:
    return without_cpu_packing(load_quantised(run, model_class, nf4_config(run)))


def nf4_config(run: Run) -> BitsAndBytesConfig:
    assert isinstance(run.regime, Qlora)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=run.regime.double_quant,
        bnb_4bit_compute_dtype=weight_dtype(run),
        bnb_4bit_quant_storage=weight_dtype(run),  # ZeRO-3 and FSDP split only parameters of a floating dtype, and of one
    )


def without_cpu_packing(model: PreTrainedModel) -> PreTrainedModel:
    """bitsandbytes 0.50 repacks 4-bit weights at the first evaluation on a CPU with AVX512-BF16; no gradient passes through them afterwards."""
    for module in model.modules():
        if isinstance(module, bitsandbytes.nn.Linear4bit):
            module.support_avx512bf16_for_cpu = False
    return model


def load_2bit(run: Run, model_class: ModelClass) -> PreTrainedModel:
    from trainers.regimes.hqq import quantise_2bit

    def quantise(model: PreTrainedModel) -> PreTrainedModel:
        return quantise_2bit(model, weight_dtype(run), PartialState().device)

    return load_mixture(run, model_class, None, quantise) if has_experts(run) else quantise(load_model(run, model_class))


def quantised_types(bits: int) -> tuple[type[nn.Module], ...]:
    if bits != 2:
        return LINEAR_TYPES
    from hqq.core.quantize import HQQLinear

    return (*LINEAR_TYPES, HQQLinear)
