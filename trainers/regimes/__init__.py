"""How weights become trainable: one module per regime, each with prepare_model(run, model_class) -> PreparedModel."""

from functools import partial
from pathlib import Path
from types import ModuleType

from peft import PeftModel, get_peft_model
from transformers import PreTrainedModel, set_seed

from conf.mixtures import draws_experts
from conf.regimes import regime_row
from conf.schema import Run
from trainers.choices import module_of
from trainers.model.build import ModelClass, adapter_dtype, with_saved_base
from trainers.model.prepared import PreparedModel
from trainers.regimes.layers import recompute_lowest


def regime_module(run: Run) -> ModuleType:
    return module_of("regime", run.regime.name, "trainers.regimes")


def prepare_model(run: Run, model_class: ModelClass, base_folder: Path) -> PreparedModel:
    """The model of a run as its regime trains it. `base_folder` receives the base of an adapter that starts from random weights."""
    regime = regime_module(run)
    if regime_row(run.regime.name).learns == "an adapter" and run.model.init == "random" and not draws_experts(run):
        run = with_saved_base(run, model_class, base_folder)
    prepared: PreparedModel = regime.prepare_model(run, model_class)
    recompute_lowest(prepared.model, run)
    return prepared


def with_adapter(prepared: PreparedModel, run: Run) -> PreTrainedModel | PeftModel:
    """The model to hand to a trainer that knows nothing of adapters: wrapped by PEFT where the regime has an adapter."""
    if prepared.peft_config is None:
        return prepared.model
    set_seed(run.training.seed)
    model = get_peft_model(prepared.model, prepared.peft_config, autocast_adapter_dtype=False)
    hold_adapter(model, run)
    return model


def save_adapter_alone(model: PreTrainedModel | PeftModel) -> None:
    """PEFT would write the whole embedding of a base that was given rows, and only where it can reach the base's config.json.

    Rows that learn are part of the adapter; the others begin at a mean that is computed again.
    """
    if isinstance(model, PeftModel):
        model.save_pretrained = partial(model.save_pretrained, save_embedding_layers=False)


def hold_adapter(model: PeftModel, run: Run) -> None:
    """Give what learns the dtype of adapters. To be called before there is an optimizer."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(adapter_dtype(run))
