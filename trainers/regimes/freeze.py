"""Some layers, named modules or inserted blocks learn, the rest of the model stays as it is."""

import difflib

import torch
from transformers import PreTrainedModel
from transformers.integrations import is_deepspeed_zero3_enabled

from conf.schema import Freeze, Run
from trainers.model.build import ModelClass, load_model, trained_dtype
from trainers.model.prepared import PreparedModel
from trainers.regimes.layers import decoder_layers
from trainers.regimes.new_blocks import insert_blocks


def prepare_model(run: Run, model_class: ModelClass) -> PreparedModel:
    """Raises ValueError when regime.layers or regime.modules name what the model does not have, or nothing at all."""
    assert isinstance(run.regime, Freeze)
    model = load_model(run, model_class)
    new = insert_blocks(model, run.regime.new_blocks) if run.regime.new_blocks else []
    chosen = [*new, *chosen_layers(model, run.regime.layers), *run.regime.modules]
    if not chosen:
        raise ValueError(
            "regime.layers=0 and regime.modules is empty, so nothing would learn. Set regime.layers (2: the last two) or regime.modules."
        )
    for name in run.regime.modules:
        refuse_unknown_module(model, name)
    train_only(model, chosen, trained_dtype(run))
    return PreparedModel(model, peft_config=None)


def chosen_layers(model: PreTrainedModel, count: int) -> list[str]:
    """The full names of the last `count` decoder layers, or of the first -count."""
    prefix, layers = decoder_layers(model)
    if abs(count) > len(layers):
        raise ValueError(f"regime.layers={count}, but the model has {len(layers)} layers. Choose at most {len(layers)}, or regime=full.")
    total = len(layers)
    indices = range(total - count, total) if count > 0 else range(-count)
    return [f"{prefix}.{index}" for index in indices]


def names_part(name: str, chosen: str) -> bool:
    """Whether `chosen` is `name`, its end, or a run of its dotted parts: norm is in model.norm.weight, not in input_norm.weight."""
    return f".{chosen}." in f".{name}."


def refuse_unknown_module(model: PreTrainedModel, chosen: str) -> None:
    names = [name for name, _ in model.named_parameters(remove_duplicate=False)]
    if any(names_part(name, chosen) for name in names):
        return
    parts = {part for name in names for part in name.split(".") if not part.isdigit()}
    near = difflib.get_close_matches(chosen.rsplit(".", 1)[-1], parts, n=3, cutoff=0.4) or sorted(parts)
    raise ValueError(f"regime.modules: {chosen} is not a module of {type(model).__name__}. Near names: {', '.join(near)}.")


def train_only(model: PreTrainedModel, chosen: list[str], dtype: torch.dtype) -> None:
    """Freeze all but the chosen modules."""
    model.requires_grad_(False)
    train_too(model, chosen, dtype)


def train_too(model: PreTrainedModel, chosen: list[str], dtype: torch.dtype) -> None:
    """Have the chosen modules learn, held in `dtype`; a tied weight learns under each of its names."""
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if any(names_part(name, part) for part in chosen):
            parameter.requires_grad_(True)
            if not is_deepspeed_zero3_enabled():  # ZeRO-3 has split the weights by now, and keeps fp32 copies of those that learn
                parameter.data = parameter.data.to(dtype)
