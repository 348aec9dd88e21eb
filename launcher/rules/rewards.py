"""What the stages that learn from rewards need of a run: a usable reward model, rewards from allowed packages, whole groups of answers."""

import json
import re
from math import ceil, floor, gcd
from pathlib import Path
from typing import Any

import yaml

from conf.constants import ADAPTER_CONFIG, BUILT_IN_REWARDS
from conf.ranks import ranks
from conf.run_dir import RunDir
from conf.schema import Composed, Grpo, Ppo, Run
from conf.stages import STAGES, Loss
from launcher.errors import ConfigError, DataError
from launcher.facts.awaited import awaited_run

IMPORT_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def check_rewards(run: Composed) -> None:
    """Before anything starts.

    Raises:
        ConfigError: when the run has no reward, or one that cannot be used.
    """
    stage = run.stage
    if isinstance(stage, Ppo):
        if stage.reward_model is None:
            raise ConfigError("stage=ppo needs a reward model. Set stage.reward_model to a run of stage=rm, or use stage=dpo, which needs none.")
        check_reward_model(stage.reward_model, run)
    if isinstance(stage, Grpo):
        if not stage.rewards and stage.reward_model is None:
            raise ConfigError("stage=grpo has no reward to learn from. Set stage.rewards, for example to [exact_answer], or set stage.reward_model.")
        check_reward_names(stage)
        if stage.reward_model is not None:
            check_reward_model(stage.reward_model, run)


def check_reward_names(stage: Grpo) -> None:
    for name in stage.rewards:
        if ":" not in name and name not in BUILT_IN_REWARDS:
            raise ConfigError(
                f"stage.rewards: {name} is not known. Use {', '.join(BUILT_IN_REWARDS)}, or one of your own as package.module:function."
            )
        if ":" in name:
            check_import(name, stage.reward_packages)
    if "format" in stage.rewards and stage.format is None:
        raise ConfigError("stage.rewards: `format` needs stage.format, which is null. Set stage.format to a regular expression.")
    try:
        re.compile(stage.format or "")
    except re.error as error:
        raise ConfigError(f"stage.format={stage.format} is not a regular expression: {error}.") from error


def check_import(name: str, packages: list[str]) -> None:
    if IMPORT_PATH.fullmatch(name) is None:
        raise ConfigError(f"stage.rewards: {name} is not an import path. Write package.module:function.")
    package = name.split(":")[0].split(".")[0]
    if package not in packages:
        raise ConfigError(f"stage.rewards: {name} would run code of {package}. If you trust it, allow it with stage.reward_packages=[{package}].")


def check_reward_model(source: str, run: Composed) -> None:
    """A run of stage rm that is finished or will be when the job starts, a folder with a sequence classifier, or a hub id, which is not read yet."""
    path = Path(source)
    if not path.is_dir():
        if HUB_ID.fullmatch(source) is None:
            raise ConfigError(f"stage.reward_model={source} is neither a folder nor a hub id (org/name). Give the folder of a run of stage=rm.")
        return
    run_dir = RunDir(path)
    if run_dir.run_yaml.is_file():
        check_reward_run(run_dir, awaited_run(run, source) is not None)
        return
    if (path / ADAPTER_CONFIG).is_file():
        kind = str(read_json(path / ADAPTER_CONFIG).get("task_type"))
        found = [] if kind == "SEQ_CLS" else [f"an adapter of kind {kind}"]
    else:
        architectures = [str(name) for name in read_json(path / "config.json").get("architectures") or ["no known architecture"]]
        found = [name for name in architectures if "SequenceClassification" not in name]
    if found:
        raise ConfigError(f"stage.reward_model={source} holds {found[0]}, which is not a sequence classifier. Train one with stage=rm.")


def check_reward_run(run_dir: RunDir, awaited: bool) -> None:
    try:
        stage = yaml.safe_load(run_dir.run_yaml.read_text(encoding="utf-8"))["stage"]["name"]
    except (yaml.YAMLError, KeyError, TypeError) as error:
        raise ConfigError(f"stage.reward_model={run_dir.path}: its run.yaml cannot be read ({error}).") from error
    if stage not in STAGES or STAGES[stage].loss is not Loss.SCORE:
        raise ConfigError(f"stage.reward_model={run_dir.path} is a run of stage={stage}. Give the folder of a run of stage=rm.")
    if not run_dir.model.is_dir() and not awaited:
        raise ConfigError(
            f"stage.reward_model={run_dir.path} is not finished: it has no {run_dir.model.name}/. "
            "Resume it first, or let this job wait for it (cluster.after)."
        )


def read_json(path: Path) -> dict[str, Any]:
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"stage.reward_model={path.parent} holds no {path.name}. Give the folder of a run of stage=rm.") from error
    except (OSError, ValueError) as error:
        raise ConfigError(f"stage.reward_model={path.parent} cannot be used: {path.name} cannot be read ({error}).") from error
    return values


def check_groups(run: Run) -> None:
    """Answers to one prompt are compared with each other, so none of a group may be missing from an optimizer step.

    Raises:
        ConfigError: naming the nearest sizes that fit.
    """
    if not isinstance(run.stage, Grpo):
        return
    batch, group = run.training.effective_batch, run.stage.generations
    if batch % group:
        one_pass = run.training.micro_batch * ranks(run)
        sizes = nearest_common_multiples(batch, group, one_pass)
        divisors = [size for size in range(2, batch + 1) if batch % size == 0]
        near = sorted(divisors, key=lambda size: abs(size - group))[:2]
        instead = f" or stage.generations={' or '.join(str(size) for size in sorted(near))}" if near else ""
        raise ConfigError(
            f"training.effective_batch={batch} is not a multiple of stage.generations={group}. "
            f"Set training.effective_batch={' or '.join(str(size) for size in sizes)} (with training.accumulation left out){instead}."
        )


def prompts_at_once(run: Run) -> int:
    """Samples that an optimizer step, or a whole rollout, begins with."""
    batch = run.training.effective_batch
    if isinstance(run.stage, Grpo):
        return batch // run.stage.generations
    return batch * run.stage.mini_batches if isinstance(run.stage, Ppo) else batch


def refuse_too_few_prompts(run: Run, samples: int) -> None:
    if isinstance(run.stage, (Ppo, Grpo)) and samples < prompts_at_once(run):
        raise DataError(
            f"{samples} prompts are fewer than the {prompts_at_once(run)} that stage={run.stage.name} answers at once. "
            f"Lower training.effective_batch{' or stage.mini_batches' * isinstance(run.stage, Ppo)}, or give more data."
        )


def steps_of_an_epoch(run: Run, samples: int) -> int:
    """Prompts that fill no rollout wait for the next epoch; a rollout of ppo is read in several passes."""
    if isinstance(run.stage, Ppo):
        return samples // prompts_at_once(run) * run.stage.epochs * run.stage.mini_batches
    whole = samples / prompts_at_once(run)
    return floor(whole) if isinstance(run.stage, Grpo) else ceil(whole)


def nearest_common_multiples(wanted: int, one: int, other: int) -> list[int]:
    """Of both numbers: the largest below `wanted`, if there is one, and the smallest above."""
    step = one * other // gcd(one, other)
    below = wanted // step * step
    return [*([below] if below else []), below + step]
