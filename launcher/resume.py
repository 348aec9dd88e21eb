"""`resume=`: go on in a run's own folder with its recorded configuration; whatever else is given is compared with it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from omegaconf.errors import OmegaConfBaseException

from conf.run_dir import RunDir, load_run, run_as_dict
from conf.schema import GROUPS, Run
from launcher.errors import ConfigError
from launcher.hints import did_you_mean, known_keys

PREFIX = "resume="

# Keys that change neither the model, nor the data, nor the numbers: they may differ on a resume.
FREE = frozenset(
    {"checkpoint.interval", "checkpoint.keep", "checkpoint.resume", "backend.port", "backend.max_restarts", "tracking.project", "tracking.entity"}
)


def split_resume(overrides: Sequence[str]) -> tuple[str | None, list[str]]:
    """The run that `resume=` names, and the other overrides."""
    named = [text.removeprefix(PREFIX) for text in overrides if text.startswith(PREFIX)]
    if len(named) > 1:
        raise ConfigError(f"resume= is given {len(named)} times: name one run folder, or last.")
    return (named[0] if named else None), [text for text in overrides if not text.startswith(PREFIX)]


def recorded_run(run_dir: RunDir) -> Run:
    """The run of a folder.

    Raises:
        ConfigError: where run.yaml is damaged or of another version.
    """
    try:
        return load_run(run_dir)
    except (yaml.YAMLError, KeyError, TypeError, OmegaConfBaseException) as error:
        first = next(iter(str(error).splitlines()), "")
        raise ConfigError(f"{run_dir.run_yaml} cannot be read ({first}): it was damaged, or written by another version of regimen.") from error


def resumed_run(run_dir: RunDir, overrides: Sequence[str]) -> Run:
    """The recorded run, with the free keys as given.

    Raises:
        ConfigError: listing every given key that differs from the record.
    """
    recorded = run_as_dict(recorded_run(run_dir))
    differences = [text for text in (difference(recorded, override) for override in overrides) if text]
    if differences:
        raise ConfigError(
            f"{run_dir.path} was started with another configuration:\n  "
            + "\n  ".join(differences)
            + "\nResume without these, or start a new run with them."
        )
    return with_free_keys(recorded, overrides)


def difference(recorded: dict[str, Any], override: str) -> str | None:
    key, value = parse(override)
    if key in FREE:
        return None
    there = lookup(recorded, key)
    same = there.get("name") == value if isinstance(there, dict) else there == value or str(there) == str(value)
    shown = there.get("name") if isinstance(there, dict) else there
    return None if same else f"{key}: recorded {shown}, given {value}"


def parse(override: str) -> tuple[str, Any]:
    key, found, text = override.partition("=")
    if not found:
        raise ConfigError(f"{override} is no override: write key=value.")
    return key, yaml.safe_load(text)


def lookup(recorded: dict[str, Any], key: str) -> Any:
    if key == "recipe" or (key in GROUPS and not isinstance(recorded.get(key), dict)):
        raise ConfigError("recipe= does nothing on a resume: the recorded configuration is used.")
    node: Any = recorded
    for part in key.split("."):
        if not isinstance(node, dict) or part not in node:
            raise ConfigError(f"{key} is not a key of this run. {did_you_mean(key, known_keys())}")
        node = node[part]
    return node


def with_free_keys(recorded: dict[str, Any], overrides: Sequence[str]) -> Run:
    from conf.run_dir import run_from_dict

    for override in overrides:
        key, value = parse(override)
        if key in FREE:
            lookup(recorded, key)
            group, field = key.split(".")
            recorded[group][field] = value
    try:
        return run_from_dict(recorded)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{error.full_key}: {error.msg}") from error


def output_of(overrides: Sequence[str]) -> Path:
    """Where runs are looked for: `output=` if given, else the default."""
    given = [text.removeprefix("output=") for text in overrides if text.startswith("output=")]
    return Path(given[-1] if given else "outputs")
