"""Loads a mixture whose experts are packed one by one, so that no layer's experts ever lie unpacked beside each other.

transformers loads all but the experts, which a quantiser of ours takes out of the model before; expert_pieces.py gives the experts.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import PartialState
from transformers import BitsAndBytesConfig, PreTrainedModel, set_seed
from transformers.quantizers.auto import register_quantizer
from transformers.quantizers.base import HfQuantizer
from transformers.quantizers.quantizer_bnb_4bit import Bnb4BitHfQuantizer
from transformers.quantizers.quantizer_bnb_8bit import Bnb8BitHfQuantizer
from transformers.utils.quantization_config import QuantizationConfigMixin, QuantizationMethod

from conf.mixtures import names_experts
from conf.schema import Qlora, Run
from trainers.model.attention import implementation
from trainers.model.build import (
    ModelClass,
    load_model,
    naming_the_path,
    pretrained_config,
    quantised_placement,
    random_config,
    random_model_from_config,
    weight_dtype,
)
from trainers.model.expert_pieces import fill_experts, pieces_of_files, random_pieces, weight_files
from trainers.model.experts import expert_modules, take_parameters
from trainers.model.packing import Form, form_of

REST_IN_4_BITS, REST_IN_8_BITS, REST_AS_IT_IS = "experts_apart_4bit", "experts_apart_8bit", "experts_apart"  # quantisers of ours


def has_experts(run: Run) -> bool:
    """Whether the model's config speaks of experts; which of them can be packed shows when it is built.

    Raises:
        ValueError: when model.path cannot be loaded, or model.architecture does not describe a model.
    """
    config = random_config(run) if run.model.init == "random" else pretrained_config(run)[2]
    return names_experts(config.to_dict())


def load_mixture(
    run: Run,
    model_class: ModelClass,
    quantization: QuantizationConfigMixin | None,
    quantise_rest: Callable[[PreTrainedModel], PreTrainedModel] | None = None,
) -> PreTrainedModel:
    """A mixture as its regime trains it: `quantization` is that of its linear layers, None to load these as they are. `quantise_rest` is given the
    model before its experts are loaded, which need the room that linear layers in 16 bits would take.

    Raises:
        ValueError: as load_model; where the files lack experts, or hold them in a form that cannot be packed one by one.
    """
    assert isinstance(run.regime, Qlora)
    form, device = form_of(run.regime), PartialState().device
    config = quantization or QuantizationConfigMixin(REST_AS_IT_IS)
    with taking_experts(config, form, weight_dtype(run)):
        model = random_rest(run, model_class, config) if run.model.init == "random" else load_model(run, model_class, config)
    if quantization is None:
        model.hf_quantizer.remove_quantization_config(model)
    else:
        model.quantization_method = QuantizationMethod.BITS_AND_BYTES
    if quantise_rest is not None:
        model = quantise_rest(model)
    if run.model.init == "random":
        refuse_other_generator(run, device)
        fill_experts(model, random_pieces(model, run.training.seed, device), device)
        return model
    path = str(run.model.path)
    with naming_the_path(path):
        fill_experts(model, pieces_of_files(model, weight_files(path, run.model.revision or "main")), device)
    return model


def refuse_other_generator(run: Run, device: torch.device) -> None:
    """A seed gives other numbers on another kind of device."""
    if run.node.gpus and device.type == "cpu":
        raise ValueError("The random experts of this run were drawn on a GPU, and a CPU draws others from the same seed. Use a machine with a GPU.")


def random_rest(run: Run, model_class: ModelClass, config: QuantizationConfigMixin) -> PreTrainedModel:
    """All but the experts drawn from the seed where the model trains, then quantised as weights of a file are."""
    set_seed(run.training.seed)
    with torch.device("meta"):
        model = random_model_from_config(run, model_class)
    take_experts(model, *config.experts)
    model.to_empty(device=PartialState().device)
    for module in expert_modules(model).values():
        for bias in module.parameters(recurse=False):
            bias.data.zero_()
    model.init_weights()
    keywords = {"config": model.config, "state_dict": model.state_dict(), "dtype": weight_dtype(run), "attn_implementation": implementation(run)}
    return type(model).from_pretrained(None, **keywords, quantization_config=config, device_map=quantised_placement())


@contextmanager
def taking_experts(config: QuantizationConfigMixin, form: Form, dtype: torch.dtype) -> Iterator[None]:
    """Have transformers use a quantiser that first takes the experts out of the model, and goes on as the one of `config` does."""
    method = config.quant_method
    config.quant_method, config.experts = quantiser_of(config), (form, dtype)
    try:
        yield
    finally:
        config.quant_method = method
        del config.experts


def quantiser_of(config: QuantizationConfigMixin) -> str:
    if not isinstance(config, BitsAndBytesConfig):
        return REST_AS_IT_IS
    return REST_IN_4_BITS if config.load_in_4bit else REST_IN_8_BITS


@register_quantizer(REST_IN_4_BITS)
class FourBitsButExperts(Bnb4BitHfQuantizer):
    def _process_model_before_weight_loading(self, model: PreTrainedModel, *args: Any, **keywords: Any) -> None:
        take_experts(model, *self.quantization_config.experts)
        super()._process_model_before_weight_loading(model, *args, **keywords)


@register_quantizer(REST_IN_8_BITS)
class EightBitsButExperts(Bnb8BitHfQuantizer):
    def _process_model_before_weight_loading(self, model: PreTrainedModel, *args: Any, **keywords: Any) -> None:
        take_experts(model, *self.quantization_config.experts)
        super()._process_model_before_weight_loading(model, *args, **keywords)


@register_quantizer(REST_AS_IT_IS)
class AllButExperts(HfQuantizer):
    requires_calibration = False

    def _process_model_before_weight_loading(self, model: PreTrainedModel, *args: Any, **keywords: Any) -> None:
        take_experts(model, *self.quantization_config.experts)

    def is_serializable(self) -> bool:
        return False

    @property
    def is_trainable(self) -> bool:
        return True


def take_experts(model: PreTrainedModel, form: Form, dtype: torch.dtype) -> None:
    """Pack nothing yet: take the experts' parameters out of a model, which may be on the meta device.

    Raises:
        ValueError: where a matrix has no whole number of blocks.
    """
    for name, module in expert_modules(model).items():
        try:
            take_parameters(module, form, dtype)
        except ValueError as error:
            raise ValueError(f"regime.bits={form.bits}: {name}: {error}. Set regime.bits=8, or regime=lora.") from error
        module._is_hf_initialized = True  # type: ignore[assignment]  # nothing of it is left that transformers would draw at random
    known = model._keys_to_ignore_on_load_unexpected or ()
    model._keys_to_ignore_on_load_unexpected = {*known, *(rf"{re.escape(name)}\." for name in expert_modules(model))}  # they are loaded afterwards
