"""Low-rank adapters beside frozen linear layers (arXiv:2106.09685)."""

from peft import LoraConfig
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from conf.constants import ALL_LINEAR, EXPERTS
from conf.schema import Lora, Run
from trainers.census import is_router
from trainers.model.build import ModelClass, load_model
from trainers.model.prepared import PreparedModel

LINEAR_TYPES: tuple[type[nn.Module], ...] = (nn.Linear, Conv1D)  # bitsandbytes' layers are nn.Linear; GPT-2 writes its own as Conv1D


def prepare_model(run: Run, model_class: ModelClass) -> PreparedModel:
    """Raises ValueError when one of regime.targets is not a linear layer of the model."""
    assert isinstance(run.regime, Lora)
    model = load_model(run, model_class)
    return PreparedModel(model, adapter_config(run, target_names(model, run.regime.targets, LINEAR_TYPES)))


def adapter_config(run: Run, targets: list[str], parameters: list[str] | None = None) -> LoraConfig:
    """`parameters`: stacked matrices of experts."""
    regime = run.regime
    assert isinstance(regime, Lora)
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=regime.rank,
        lora_alpha=regime.alpha,
        lora_dropout=regime.dropout,
        target_modules=targets,
        target_parameters=parameters,
        use_rslora=regime.rslora,
        use_dora=regime.dora,
        init_lora_weights=True if regime.init == "default" else regime.init,
        revision=run.model.revision,  # of the base that the adapter belongs to
    )


def target_names(model: PreTrainedModel, targets: list[str], types: tuple[type[nn.Module], ...]) -> list[str]:
    """The full names of the layers that get an adapter: PEFT's own `all-linear` does not know HQQ's layers."""
    linear = {name: module for name, module in model.named_modules() if isinstance(module, types) and not is_router(module)}
    body = set(model.base_model.modules())  # the output head is outside of it
    chosen: list[str] = []
    for target in (target for target in targets if target != EXPERTS):
        names = [name for name, module in linear.items() if (module in body if target == ALL_LINEAR else f".{name}".endswith(f".{target}"))]
        if not names:
            known = sorted({name.rsplit(".", 1)[-1] for name in linear})
            raise ValueError(
                f"regime.targets: {target} is not a linear layer of {type(model).__name__}. Its linear layers: {', '.join(known)}; or [{ALL_LINEAR}]."
            )
        chosen += names
    if not chosen and EXPERTS not in targets:
        raise ValueError(f"regime.targets is empty, so no layer would get an adapter. Set regime.targets=[{ALL_LINEAR}].")
    return sorted(set(chosen))
