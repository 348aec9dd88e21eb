"""The adapter that a run goes on training: read and compared with the run before any process starts."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from conf.constants import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from conf.run_dir import RunDir
from conf.schema import Lora, Run
from launcher.errors import ConfigError
from launcher.facts.model import ModelFacts, ModuleKind
from launcher.facts.model.weight_files import NUMBER, tensors_of
from launcher.memory.weights.parameters import adapter_targets, full_name, places

KEYS = {"rank": "r", "alpha": "lora_alpha", "rslora": "use_rslora", "dora": "use_dora"}  # ours, PEFT's
SIZES = ("r", "lora_alpha")  # every adapter has them
LORA = re.compile(r"base_model\.model\.(.+)\.lora_([AB])\.weight")  # PEFT's names of an adapter's two matrices


def with_adapter_folder(run: Run) -> Run:
    """The run with the folder that holds the adapter in place of the run folder that it may have named.

    Raises:
        ConfigError: when there is no LoRA adapter, or it is of another shape or base than the run's.
    """
    regime = run.regime
    if not isinstance(regime, Lora) or regime.adapter is None:
        return run
    folder = adapter_folder(Path(regime.adapter).expanduser())
    refuse_other_adapter(run, regime, folder, read_config(folder))
    return replace(run, regime=replace(regime, adapter=str(folder)))


def adapter_folder(given: Path) -> Path:
    for folder in (given, RunDir(given).model):
        if (folder / ADAPTER_CONFIG).is_file() and (folder / ADAPTER_WEIGHTS).is_file():
            return folder.resolve()
    raise ConfigError(
        f"regime.adapter={given} holds no adapter. Give the folder with {ADAPTER_CONFIG} and {ADAPTER_WEIGHTS}, or the run folder of a finished "
        "run of regime=lora."
    )


def read_config(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{folder / ADAPTER_CONFIG} cannot be read: {error}. Save the adapter again.") from error
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        raise ConfigError(
            f"{folder / ADAPTER_CONFIG} does not describe a LoRA adapter, and no other kind can be trained further. Give a LoRA adapter."
        )
    return config


def refuse_other_adapter(run: Run, regime: Lora, folder: Path, config: dict[str, Any]) -> None:
    for key, theirs in KEYS.items():
        if theirs not in config and theirs in SIZES:
            raise ConfigError(f"{folder / ADAPTER_CONFIG} has no {theirs}, so it does not describe a whole adapter. Save the adapter again.")
        wanted, found = getattr(regime, key), config.get(theirs, False)
        if wanted != found:
            raise ConfigError(f"regime.{key}={wanted}, but the adapter in {folder} has {found}. Set regime.{key}={str(found).lower()}.")
    base = config.get("base_model_name_or_path")
    if run.model.init == "pretrained" and run.model.path is not None and base and Path(base).name != Path(run.model.path).name:
        raise ConfigError(
            f"regime.adapter={folder} was trained on {base}, and this run's model is {run.model.path}. Set model.path to that base. If it only "
            f"has a different name here, write this name into {ADAPTER_CONFIG}."
        )


def refuse_other_layers(run: Run, facts: ModelFacts) -> None:
    """Compare the adapter's tensors, as its file's header lists them, with the layers that the run gives adapters to.

    Raises:
        ConfigError: for an adapter of another model or of other layers.
    """
    regime = run.regime
    if not isinstance(regime, Lora) or regime.adapter is None:
        return
    folder = Path(regime.adapter)
    found = {tensor.name: tensor.shape for tensor in tensors_of(folder / ADAPTER_WEIGHTS)}
    known = {name: module for module in facts.modules if module.kind in ("linear", "head") for name in names_of(module)}
    targeted = {name for module in adapter_targets(regime, facts) for name in names_of(module)}
    layers = {match[1]: match[2] for name in found if (match := LORA.fullmatch(name))}
    for name, shape in found.items():
        match = LORA.fullmatch(name)
        if match is None or match[1] not in known:
            continue
        module = known[match[1]]
        wanted = (regime.rank, module.inputs) if match[2] == "A" else (module.outputs, regime.rank)
        if shape != wanted:
            raise ConfigError(
                f"regime.adapter={folder}: {name} is {list(shape)} instead of {list(wanted)}, so it was trained on another model. "
                "Set model.path to that model."
            )
    if not any(name in known for name in layers):
        raise ConfigError(
            f"regime.adapter={folder} has adapters for no layer of {run.model.name}. Set model.path to the model that it was trained on."
        )
    beyond = [int(number[1]) for name in layers if name not in known and (number := NUMBER.search(name)) and int(number[1]) >= facts.layers]
    if beyond:
        raise ConfigError(
            f"regime.adapter={folder} has one for layer {min(beyond)}, and {run.model.name} has {facts.layers} layers, so it was trained on another "
            "model. Set model.path to that model."
        )
    trained = sorted({name.rsplit(".", 1)[-1] for name in layers if name in known})
    for name in sorted(targeted ^ {name for name in layers if name in known}):
        what = f"has none for {name}" if name in targeted else f"has one for {name}, which this run would not train"
        raise ConfigError(f"regime.adapter={folder} {what}. Set regime.targets=[{','.join(trained)}], the layers that it was trained on.")


def names_of(module: ModuleKind) -> list[str]:
    return [full_name(module, place) for place in places(module)]
