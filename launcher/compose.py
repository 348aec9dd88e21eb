"""Overrides and YAML files to one typed Run. The only module that touches Hydra's composition."""

import difflib
import os
import re
from collections.abc import Sequence
from pathlib import Path

import yaml
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import create_config_search_path
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    InterpolationResolutionError,
    MissingMandatoryValue,
    OmegaConfBaseException,
)

from conf.schema import Run, register
from launcher.errors import ConfigError, Unsafe

CONFIG_NAME = "run"
DEFAULT_RECIPE = "recipe=demo"
SECRET_NAME = re.compile(r"TOKEN|SECRET|PASSWORD|PASSWD|API_?KEY|CREDENTIAL", re.IGNORECASE)
SECRET_VALUE = re.compile(r"\b(hf_[A-Za-z0-9]{20,}|sk-[A-Za-z0-9_-]{20,}|gh[pousr]_[A-Za-z0-9]{20,}|AKIA[A-Z0-9]{16})\b")


def compose(overrides: Sequence[str], config_dirs: Sequence[Path] = ()) -> Run:
    """The run that `overrides` describe, every interpolation resolved.

    Raises:
        ConfigError: naming the key or value that is wrong, and the nearest valid one.
        Unsafe: when a value is a secret.
    """
    return typed_run(compose_config(overrides, config_dirs))


def compose_config(overrides: Sequence[str], config_dirs: Sequence[Path] = ()) -> DictConfig:
    """The composed configuration as OmegaConf holds it, before interpolations are resolved."""
    config = load_config(checked_overrides(overrides, config_dirs), config_dirs, RunMode.RUN)
    OmegaConf.set_struct(config, True)
    return without_hydra(config)


def checked_overrides(overrides: Sequence[str], config_dirs: Sequence[Path]) -> list[str]:
    """What Hydra is given: the overrides with the default recipe, free of secrets and of keys that no type knows."""
    for text in overrides:
        refuse_secret(text, os.environ)
    given = with_default_recipe(overrides)
    refuse_additions(given)
    for folder in config_dirs:
        if not folder.is_dir():
            raise ConfigError(f"--config-dir {folder} is not a folder. Give the folder that holds your groups.")
    return given


def load_config(given: Sequence[str], config_dirs: Sequence[Path], mode: RunMode) -> DictConfig:
    """Hydra's composition of checked overrides, its own node included; in MULTIRUN mode swept overrides are left out."""
    loader = config_loader(config_dirs)
    try:
        return loader.load_configuration(config_name=CONFIG_NAME, overrides=[*given], run_mode=mode)
    except MissingConfigException as error:
        raise ConfigError(missing_choice(error)) from error
    except yaml.YAMLError as error:
        raise ConfigError(f"A YAML file cannot be read: {error}. Mend it at that line.") from error
    except ConfigCompositionException as error:
        raise ConfigError(composition_message(error)) from error
    except (HydraException, OmegaConfBaseException, ValueError, TypeError, AttributeError, AssertionError) as error:
        # Hydra raises bare built-in errors for some bad input (a group set to null, a defaults list that is no list).
        raise ConfigError(f"The configuration cannot be composed: {first_line(error)}") from error


def config_loader(config_dirs: Sequence[Path]) -> ConfigLoaderImpl:
    Plugins.instance()  # before any core plugin is imported: the scan re-executes modules that are already loaded
    register()
    search_path = create_config_search_path("pkg://conf")
    for folder in config_dirs:
        search_path.append(provider="--config-dir", path=f"file://{folder.resolve()}")
    return ConfigLoaderImpl(config_search_path=search_path)


def choices(group: str, config_dirs: Sequence[Path] = ()) -> list[str]:
    """The names that `group=` takes."""
    return sorted(config_loader(config_dirs).get_group_options(group))


def typed_run(config: DictConfig) -> Run:
    """The dataclasses of a composed configuration.

    Raises:
        ConfigError: for a value that is still missing, or an interpolation that cannot be resolved.
    """
    try:
        run = OmegaConf.to_object(config)
    except MissingMandatoryValue as error:
        raise ConfigError(f"{error.full_key} has no value. Set {error.full_key}=...") from error
    except InterpolationResolutionError as error:
        raise ConfigError(f"{error.full_key} cannot be resolved: {first_line(error)}") from error
    except OmegaConfBaseException as error:
        raise ConfigError(f"{error.full_key}: {first_line(error)}") from error
    assert isinstance(run, Run)
    refuse_secret(OmegaConf.to_yaml(config, resolve=True), os.environ)
    return run


def without_hydra(config: DictConfig) -> DictConfig:
    OmegaConf.set_readonly(config, False)
    OmegaConf.set_struct(config, False)
    config.pop("hydra", None)
    OmegaConf.set_struct(config, True)
    return config


def with_default_recipe(overrides: Sequence[str]) -> list[str]:
    """Nobody who names neither recipe nor model nor data wants an error: they get the demo."""
    named = {text.split("=", 1)[0].lstrip("+~") for text in overrides}
    return [*overrides] if named & {"recipe", "model", "data"} else [DEFAULT_RECIPE, *overrides]


def refuse_additions(overrides: Sequence[str]) -> None:
    """`+key` and `++key` would slip past the types, `~key` would remove what every part relies on."""
    for text in overrides:
        if text.startswith(("+", "~")):
            key = text.lstrip("+~").split("=", 1)[0]
            raise ConfigError(f"{text}: keys are neither added nor removed here. {nearest_key(key)}")
    try:
        OverridesParser.create().parse_overrides([*overrides])
    except OverrideParseException as error:
        raise ConfigError(f"{error.override}: cannot be read as key=value: {first_line(error)}") from error
    except HydraException as error:
        raise ConfigError(first_line(error)) from error


def refuse_secret(text: str, environment: "os._Environ[str]") -> None:
    """No configuration value needs a secret: libraries read theirs from the environment.

    Raises:
        Unsafe: when `text` holds the value of a secret variable, or what looks like a token; the message never shows it.
    """
    for name, value in environment.items():
        if SECRET_NAME.search(name) and len(value) >= 8 and value in text:
            raise Unsafe(f"The configuration holds the value of ${name}. Leave it in the environment: it is read there.")
    if SECRET_VALUE.search(text):
        raise Unsafe("The configuration holds what looks like an access token. Put it into the environment instead (HF_TOKEN, WANDB_API_KEY).")


def missing_choice(error: MissingConfigException) -> str:
    wanted = (error.missing_cfg_file or "").rsplit("/", 1)
    if len(wanted) != 2 or error.options is None:
        return first_line(error)
    group, name = wanted
    return f"{group}={name} is not a choice. {did_you_mean(name, error.options)}{group} is one of: {', '.join(sorted(error.options))}."


def composition_message(error: ConfigCompositionException) -> str:
    cause = error.__cause__
    text = str(error)
    if isinstance(cause, (ConfigAttributeError, ConfigKeyError)):
        key = cause.full_key or text
        return f"{key} is not a key. {nearest_key(key)}"
    if "You must specify" in text:
        return text.replace("\n", " ")
    if isinstance(cause, OmegaConfBaseException):
        return f"{cause.full_key or 'A value'}: {first_line(cause)}"
    match = re.search(r"Could not override '([^']+)'", text)
    if match:
        return f"{match[1]} is not a key. {nearest_key(match[1])}"
    return text.splitlines()[0]


def nearest_key(key: str) -> str:
    return did_you_mean(key, known_keys()) + "`regimen train --cfg` shows every key."


def did_you_mean(word: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    if not near and "." not in word:
        near = [key for key in known if key.rsplit(".", 1)[-1] == word][:1]
    return f"Did you mean {near[0]}? " if near else ""


def known_keys() -> list[str]:
    """Every dotted key of the schema, over all choices."""
    from dataclasses import fields

    from conf.schema import GROUPS, PLAIN_GROUPS, SUBTYPES

    keys = ["name", "output", *GROUPS, "recipe"]
    for group in GROUPS:
        types = [PLAIN_GROUPS[group]] if group in PLAIN_GROUPS else list(SUBTYPES[group].values())
        keys += [f"{group}.{field.name}" for node in types for field in fields(node)]
    return list(dict.fromkeys(keys))


def first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
