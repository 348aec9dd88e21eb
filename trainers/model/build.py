"""Builds the weights of a run: from a folder or hub id, or at random from the architecture and the seed."""

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import torch
from accelerate import PartialState
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel, set_seed
from transformers.initialization import no_init_weights
from transformers.integrations import is_deepspeed_zero3_enabled
from transformers.modeling_utils import set_quantized_state
from transformers.utils.quantization_config import QuantizationConfigMixin

from conf.regimes import regime_row
from conf.schema import Fsdp, Model, Run
from trainers.model.attention import implementation

# Weights that learn are fp32 under autocast; those that only take part in the forward pass have the dtype it computes in.
TRAINED = {"bf16_amp": torch.float32, "fp16_amp": torch.float32, "bf16": torch.bfloat16, "fp32": torch.float32}
FROZEN = {"bf16_amp": torch.bfloat16, "fp16_amp": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}


class ModelClass(Protocol):
    """One of transformers' Auto classes."""

    def from_pretrained(self, path: str, **keywords: object) -> PreTrainedModel: ...
    def from_config(self, config: PreTrainedConfig, **keywords: object) -> PreTrainedModel: ...


def load_model(
    run: Run, model_class: ModelClass, quantization: QuantizationConfigMixin | None = None, dtype: torch.dtype | None = None
) -> PreTrainedModel:
    """The model of a run, equal on all ranks. Under ZeRO-3 the TrainingArguments must exist before: they make the weights be built in parts.

    `dtype`: in which weights are loaded from files, if not in that of the regime.

    Raises:
        ValueError: when model.path cannot be loaded, or model.init and model.architecture do not describe a model.
    """
    set_seed(run.training.seed)  # also when weights are loaded: a head that the files lack is initialised
    if run.model.init == "random":
        if quantization is not None:
            raise ValueError("Random weights are quantised from their files: write them with save_random_base, then load that folder.")
        build = random_model_from_config if is_deepspeed_zero3_enabled() else whole_random_model
        with torch.device(random_device(run)):
            return build(run, model_class)
    return pretrained_model(run, model_class, quantization, dtype or weight_dtype(run))


def weight_dtype(run: Run) -> torch.dtype:
    """The dtype in which the model is loaded: all of it learns (full), or most of it is frozen."""
    return trained_dtype(run) if regime_row(run.regime.name).learns == "every weight" else by_precision(FROZEN, run.training.precision)


def trained_dtype(run: Run) -> torch.dtype:
    """The dtype of the weights that learn."""
    return by_precision(TRAINED, run.training.precision)


def adapter_dtype(run: Run) -> torch.dtype:
    """The dtype of adapters. ZeRO-3 gathers the parameters of a module together, so there they have the dtype of the base."""
    return weight_dtype(run) if is_deepspeed_zero3_enabled() else trained_dtype(run)


def by_precision(dtypes: dict[str, torch.dtype], precision: str) -> torch.dtype:
    if precision not in dtypes:
        raise ValueError(f"training.precision={precision} is not known. Choose one of {', '.join(dtypes)}.")
    return dtypes[precision]


def random_device(run: Run) -> torch.device:
    """Random weights are made where they train, except under FSDP, which moves them to the GPU block by block as it splits them."""
    return torch.device("cpu") if isinstance(run.sharding, Fsdp) else PartialState().device


def random_model_from_config(run: Run, model_class: ModelClass) -> PreTrainedModel:
    """Under ZeRO-3 from_config builds and initialises a model in parts."""
    keywords = {"dtype": weight_dtype(run), "attn_implementation": implementation(run), "trust_remote_code": False}
    return model_class.from_config(random_config(run), **keywords)


def whole_random_model(run: Run, model_class: ModelClass) -> PreTrainedModel:
    """The same weights as ZeRO-3 gets from the seed: without no_init_weights, from_config would draw every weight twice, and the seed give others."""
    with no_init_weights(), set_quantized_state():  # the second is transformers' switch that turns ZeRO-3 off while a model is built
        model = random_model_from_config(run, model_class)
    model.init_weights()
    return model


def random_config(run: Run) -> PreTrainedConfig:
    architecture = dict(run.model.architecture)
    if "model_type" not in architecture:
        raise ValueError(
            "model.init=random needs model.architecture, the contents of a config.json with its model_type. Give it, or set model.init=pretrained."
        )
    config = AutoConfig.for_model(**architecture)
    return with_rope_scaling(config, run.model.rope_scaling, run.data.cutoff)


def pretrained_config(run: Run) -> tuple[str, str, PreTrainedConfig]:
    """Path, revision and configuration of the model.

    Raises:
        ValueError: when model.path cannot be loaded.
    """
    path, revision = run.model.path, run.model.revision or "main"
    if path is None:
        raise ValueError("model.init=pretrained needs model.path, a folder or hub id. Give it, or set model.init=random.")
    with naming_the_path(path):
        config = AutoConfig.from_pretrained(path, revision=revision, trust_remote_code=False)
    return path, revision, with_rope_scaling(config, run.model.rope_scaling, run.data.cutoff)


def pretrained_model(run: Run, model_class: ModelClass, quantization: QuantizationConfigMixin | None, dtype: torch.dtype) -> PreTrainedModel:
    path, revision, config = pretrained_config(run)
    with naming_the_path(path):
        return model_class.from_pretrained(
            path,
            revision=revision,
            config=config,
            dtype=dtype,
            attn_implementation=implementation(run),
            trust_remote_code=False,
            use_safetensors=True,
            quantization_config=quantization,
            device_map=quantised_placement() if quantization is not None else None,
        )


@contextmanager
def naming_the_path(path: str) -> Iterator[None]:
    """transformers raises OSError for missing or unreachable files, and ValueError for unknown models and for those that bring code."""
    try:
        yield
    except (OSError, ValueError) as error:
        wanted = "a folder or hub id with config.json and safetensors files; code that comes with a model is never run"
        raise ValueError(f"model.path={path} cannot be loaded: it must name {wanted}. {error}") from error


def quantised_placement() -> dict[str, torch.device] | None:
    """Each rank quantises straight onto its own device. ZeRO-3 does not accept a placement; transformers then uses the current device by itself."""
    return None if is_deepspeed_zero3_enabled() else {"": PartialState().device}


def with_rope_scaling(config: PreTrainedConfig, kind: str | None, cutoff: int) -> PreTrainedConfig:
    """Stretch rotary positions so that `cutoff` tokens fit; unchanged where they fit already."""
    if kind is None:
        return config
    rope = config.to_dict().get("rope_parameters") or {}
    present = rope.get("rope_type")
    if present not in ("default", kind):
        found = f"already scales them as {present}" if present else "has no rotary positions of one kind"
        raise ValueError(f"model.rope_scaling={kind} cannot be applied: {config.model_type} {found}. Set model.rope_scaling=null.")
    if cutoff <= config.max_position_embeddings:
        return config
    factor = float(math.ceil(cutoff / config.max_position_embeddings))
    config.rope_parameters = {**rope, "rope_type": kind, "factor": factor, "original_max_position_embeddings": config.max_position_embeddings}
    return config


def with_saved_base(run: Run, model_class: ModelClass, folder: Path) -> Run:
    """An adapter cannot be used without its base: write a random base into `folder` once, by the first rank, and train on those files."""
    with PartialState().main_process_first():
        if not folder.is_dir():
            save_random_base(run, model_class, folder)
    return replace(run, model=on_disk(run.model, folder))


def on_disk(model: Model, folder: Path) -> Model:
    return replace(model, init="pretrained", path=str(folder.resolve()), revision=None)


def save_random_base(run: Run, model_class: ModelClass, folder: Path) -> None:
    """Build the random weights on the CPU and write them; the folder appears when it is whole."""
    set_seed(run.training.seed)
    partial = folder.with_name(f".{folder.name}.partial")
    whole_random_model(run, model_class).save_pretrained(partial)
    os.replace(partial, folder)
