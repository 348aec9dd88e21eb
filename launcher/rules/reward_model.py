"""The folder that stage.reward_model names: a head, weights, a tokenizer and a base, seen in its files before any process starts."""

import json
from pathlib import Path

from conf.constants import ADAPTER_CONFIG, ADAPTER_WEIGHTS, SCORE_HEAD
from conf.run_dir import RunDir
from conf.schema import Run
from launcher.errors import ConfigError
from launcher.facts.awaited import awaited_run
from launcher.facts.model.tokenizer_files import holds_vocabulary
from launcher.facts.model.weight_files import SINGLE, Tensor, tensors_of, weight_files

# Ends of the names that transformers and PEFT give the head of a sequence classifier.
HEADS = (f".{SCORE_HEAD}.weight", ".classifier.weight", ".classifier.out_proj.weight", f".{SCORE_HEAD}.modules_to_save.weight")

NO_BASE = "None"  # as PEFT writes the name of a base that came from no files


def refuse_unfit_reward_model(run: Run) -> None:
    """What check_rewards (rewards.py) does not look at; of a hub id nothing is known before its download.

    Raises:
        ConfigError: where its scores would be random, or it cannot be loaded.
    """
    source = getattr(run.stage, "reward_model", None)
    if source is None or not Path(source).is_dir() or awaited_run(run, source) is not None:
        return
    run_dir = RunDir(Path(source))
    folder = run_dir.model if run_dir.run_yaml.is_file() else run_dir.path
    head = head_of(source, folder)
    if head is None:
        raise ConfigError(f"stage.reward_model={source} has no weights for {SCORE_HEAD}.weight: its scores would be random. Train it with stage=rm.")
    if head.shape[0] != 1:
        raise ConfigError(f"stage.reward_model={source} has a head of {head.shape[0]} outputs, and a reward is one number. Train it with stage=rm.")
    if not holds_vocabulary(folder):
        raise ConfigError(f"stage.reward_model={source} holds no tokenizer. Copy the files of its tokenizer into {folder}.")
    if (folder / ADAPTER_CONFIG).is_file():
        refuse_absent_base(source, run_dir, folder)


def head_of(source: str, folder: Path) -> Tensor | None:
    adapted = (folder / ADAPTER_CONFIG).is_file()
    files = [path for path in [folder / ADAPTER_WEIGHTS] if path.is_file()] if adapted else weight_files(folder)
    if not files:
        raise ConfigError(f"stage.reward_model={source} holds no weights ({ADAPTER_WEIGHTS if adapted else SINGLE}). Train one with stage=rm.")
    return next((tensor for file in files for tensor in tensors_of(file) if f".{tensor.name}".endswith(HEADS)), None)


def refuse_absent_base(source: str, run_dir: RunDir, folder: Path) -> None:
    """An adapter judges on its base: the random one beside it, or the folder or hub id that it was trained on."""
    base = str(json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8")).get("base_model_name_or_path"))  # check_rewards has read it
    if not run_dir.base.is_dir() and base == NO_BASE:
        raise ConfigError(
            f"stage.reward_model={source} is an adapter on random weights that were never written, as those of a quantised mixture are. "
            "Merge it (`regimen export --merge`) and name the export, or train another with stage=rm."
        )
    if not run_dir.base.is_dir() and Path(base).is_absolute() and not Path(base).is_dir():
        raise ConfigError(f"stage.reward_model={source} is an adapter on {base}, which is not there. Put it back, or train another with stage=rm.")
