"""Compares the names of modules that a regime was given with the model, before anything is loaded."""

import difflib

from conf.constants import ALL_LINEAR, EXPERTS, SCORE_HEAD
from conf.schema import Freeze, Lora, Run
from conf.stages import Loss, stage_row
from launcher.errors import ConfigError
from launcher.facts.model import ModelFacts
from launcher.memory.weights.parameters import full_name, places


def refuse_unknown_modules(run: Run, facts: ModelFacts) -> None:
    """
    Raises:
        ConfigError: for a target of adapters that is not a linear layer of the model, a part that is to learn and is not there, or too many layers.
    """
    if isinstance(run.regime, Lora):
        for target in run.regime.targets:
            refuse_unknown_target(target, run, facts)
    if isinstance(run.regime, Freeze):
        refuse_too_many_layers(run.regime, run, facts)
        for name in run.regime.modules:
            refuse_unknown_part(name, run, facts)


def refuse_unknown_target(target: str, run: Run, facts: ModelFacts) -> None:
    linear = [module for module in facts.modules if module.kind in ("linear", "head")]
    if target == EXPERTS and any(module.kind == "experts" and module.plain for module in facts.modules):
        return
    if target == EXPERTS:
        raise ConfigError(
            f"regime.targets: {target} are the routed experts of a mixture whose layers follow transformers' common interface, and "
            f"{run.model.name} has none. Use regime.targets=[{ALL_LINEAR}]."
        )
    if target == ALL_LINEAR or any(f".{full_name(module, place)}".endswith(f".{target}") for module in linear for place in places(module)):
        return
    known = sorted({module.name.rsplit(".", 1)[-1] for module in linear})
    raise ConfigError(f"regime.targets: {target} is not a linear layer of {run.model.name}. Use one of {', '.join(known)}, or [{ALL_LINEAR}].")


def refuse_too_many_layers(regime: Freeze, run: Run, facts: ModelFacts) -> None:
    if abs(regime.layers) > facts.layers:
        raise ConfigError(
            f"regime.layers={regime.layers}, but {run.model.name} has {facts.layers} layers. Choose at most {facts.layers}, or use regime=full."
        )


def refuse_unknown_part(chosen: str, run: Run, facts: ModelFacts) -> None:
    names = [full_name(module, place) for module in facts.modules for place in places(module)]
    names += [SCORE_HEAD] if stage_row(run.stage.name).loss is Loss.SCORE else []
    if any(f".{chosen}." in f".{name}.{parameter}." for name in names for parameter in ("weight", "bias")):
        return
    parts = sorted({part for name in names for part in name.split(".") if not part.isdigit()})
    near = difflib.get_close_matches(chosen.rsplit(".", 1)[-1], parts, n=3, cutoff=0.4) or parts
    raise ConfigError(f"regime.modules: {chosen} is not a module of {run.model.name}. Similar names are: {', '.join(near)}.")
