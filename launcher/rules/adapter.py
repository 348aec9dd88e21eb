"""The adapter that a run goes on training: read and compared with the run before any process starts."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from conf.constants import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from conf.run_dir import RunDir
from conf.schema import Lora, Run
from launcher.errors import ConfigError

KEYS = {"rank": "r", "alpha": "lora_alpha", "rslora": "use_rslora", "dora": "use_dora"}  # ours, PEFT's


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
        wanted, found = getattr(regime, key), config.get(theirs, False)
        if wanted != found:
            raise ConfigError(f"regime.{key}={wanted}, but the adapter in {folder} has {found}. Set regime.{key}={str(found).lower()}.")
    base = config.get("base_model_name_or_path")
    if run.model.init == "pretrained" and run.model.path is not None and base and Path(base).name != Path(run.model.path).name:
        raise ConfigError(
            f"regime.adapter={folder} was trained on {base}, and this run's model is {run.model.path}. Set model.path to that base. If it only "
            f"has a different name here, write this name into {ADAPTER_CONFIG}."
        )
