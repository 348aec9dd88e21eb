"""Overrides and YAML files to one typed Run. This module and built_in.py alone touch Hydra's composition."""

import os
import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import yaml
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationResolutionError, MissingMandatoryValue, OmegaConfBaseException

from conf.choices import subtypes, type_of
from conf.environment import hide_named, texts_in, to_object
from conf.hosts import with_nodes
from conf.rows import MissingRow
from conf.schema import GROUPS, Composed, register
from conf.secrets import shape_of_secret
from conf.sizes import with_sizes
from launcher.composition import own_groups
from launcher.composition.built_in import compose_built_in
from launcher.composition.mistakes import (
    ALL_KEYS,
    composition_message,
    first_line,
    meant,
    missing_choice,
    missing_value,
    uncomposed_message,
)
from launcher.composition.names import folder_name
from launcher.composition.spelling import in_pieces, tilde, too_many_digits, unreadable
from launcher.composition.values import as_written, odd_reference, odd_value, reference_message, value_message
from launcher.errors import ConfigError, Unsafe

CONFIG_NAME = "sweep"
DEFAULT_RECIPE = "recipe=demo"
NAMING = {
    "recipe",
    "model",
    "model.path",
    "model.architecture",
    "data",
    "data.sets",
    "data.folder",
    "data.registry",
}  # what says which model and data
PATHS = ("output", "model.path", "data.folder", "data.cache", "regime.adapter", "stage.reward_model")
DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)  # libyaml's, where PyYAML has it: written in Python, the text took a fifth of composing
KEPT = 1024  # overrides, as Hydra's grammar reads them
SECRET_NAME = re.compile(r"TOKEN|SECRET|PASSWORD|PASSWD|API_?KEY|CREDENTIAL", re.IGNORECASE)


def compose(overrides: Sequence[str], config_dirs: Sequence[Path] = ()) -> Composed:
    """The run that `overrides` describe, every interpolation resolved.

    Raises:
        ConfigError: naming the key or value that is wrong, and the nearest valid one.
        Unsafe: when a value is a secret.
    """
    return typed_run(compose_config(overrides, config_dirs))


def compose_config(overrides: Sequence[str], config_dirs: Sequence[Path] = ()) -> DictConfig:
    """The composed configuration as OmegaConf holds it, before interpolations are resolved."""
    given = checked_overrides(overrides, config_dirs)
    refuse_sweep_settings(given)
    config = load_config(given, config_dirs, RunMode.RUN)
    OmegaConf.set_struct(config, True)
    return without_hydra(config)


def checked_overrides(overrides: Sequence[str], config_dirs: Sequence[Path]) -> list[str]:
    """What Hydra is given: the overrides with the default recipe, free of secrets and of keys that no type knows."""
    refuse_secrets(overrides)
    given = with_default_recipe(overrides)
    refuse_additions(given)
    overriding = parsed(given)
    for override in overriding:
        refuse_no_choice(override, config_dirs)
    for folder in config_dirs:
        own_groups.refuse_folder(folder)
    return [str(override.input_line) for override in overriding]


def load_config(given: Sequence[str], config_dirs: Sequence[Path], mode: RunMode) -> DictConfig:
    """Hydra's composition of checked overrides; in MULTIRUN mode with its own node, and swept overrides are left out."""
    loader, overriding = config_loader(config_dirs), read(given)
    several = mode is RunMode.MULTIRUN or any(override.is_sweep_override() for override in overriding)
    try:
        if not several and not config_dirs:
            return compose_built_in(overriding)
        return loader.load_configuration(config_name=CONFIG_NAME, overrides=[*given], run_mode=mode)
    except MissingConfigException as error:
        raise ConfigError(missing_choice(error)) from error
    except yaml.YAMLError as error:
        raise config_error(f"A YAML file cannot be read: {error}. Fix that line.") from error
    except ConfigCompositionException as error:
        raise config_error(composition_message(error, given)) from error
    except RecursionError as error:
        raise ConfigError("The configuration cannot be composed, because a defaults list leads back to its own file. Remove that entry.") from error
    except OSError as error:
        raise ConfigError(f"{error.filename} cannot be read: {error.strerror}. Check the file and its permissions.") from error
    except (HydraException, OmegaConfBaseException, ValueError, TypeError, AttributeError, AssertionError) as error:
        # Hydra raises bare built-in errors for some bad input (a group set to null, a defaults list that is not a list).
        raise config_error(uncomposed_message(error)) from error


def config_error(message: str) -> ConfigError:
    """The error with this message, unless it would show a secret that a file or the environment held."""
    refuse_secret(message, os.environ)
    return ConfigError(message)


def config_loader(config_dirs: Sequence[Path]) -> ConfigLoaderImpl:
    Plugins.instance()  # before any core plugin is imported: the scan re-executes modules that are already loaded
    register()
    own_groups.register_source()
    OmegaConf.register_new_resolver("folder_name", folder_name, replace=True)
    search_path = create_config_search_path("pkg://conf")
    for folder in config_dirs:
        search_path.prepend(
            provider="--config-dir", path=f"{own_groups.SCHEME}://{folder.resolve()}", anchor=SearchPathQuery(provider="schema")
        )  # Hydra needs it last
    return ConfigLoaderImpl(config_search_path=search_path)


def choices(group: str, config_dirs: Sequence[Path] = ()) -> list[str]:
    """The names that `group=` accepts."""
    return sorted(config_loader(config_dirs).get_group_options(group))


def typed_run(config: DictConfig) -> Composed:
    """The dataclasses of a composed configuration.

    Raises:
        ConfigError: for a value that is still missing, or an interpolation that cannot be resolved.
    """
    try:
        hide_named(config)
        refuse_odd_references(config)
        run = to_object(config)
    except MissingMandatoryValue as error:
        raise ConfigError(missing_value(str(error.full_key))) from error
    except InterpolationResolutionError as error:
        missing = re.search(r"Missing mandatory value: ([\w.]+)", str(error))
        if missing is not None:
            raise ConfigError(missing_value(missing[1])) from error
        raise config_error(reference_message(str(error.full_key), first_line(error))) from error
    except OmegaConfBaseException as error:
        raise config_error(value_message(error.full_key or "A value", first_line(error))) from error
    if not isinstance(run, Composed):
        raise TypeError(f"OmegaConf made {type(run).__name__} of a run.")
    values = OmegaConf.to_container(config, resolve=True, enum_to_str=True)
    refuse_secret(yaml.dump(values, Dumper=DUMPER, sort_keys=False, allow_unicode=True), os.environ)
    refuse_renamed(run)
    refuse_tilde(config)
    try:
        return with_nodes(with_sizes(run))
    except ValueError as error:
        raise ConfigError(str(error)) from error


def refuse_odd_references(config: DictConfig) -> None:
    for group in GROUPS:
        refers = any("${" in text for text in texts_in(config._get_node(group)))
        for field in config[group] if refers and not OmegaConf.is_missing(config, group) else ():
            if OmegaConf.is_interpolation(config[group], field):
                odd = odd_reference(f"{group}.{field}", config[group][field])
                if odd is not None:
                    raise ConfigError(odd)


def refuse_tilde(config: DictConfig) -> None:
    """No part of regimen expands ~: it would be the name of a folder."""
    for key in PATHS:
        value = OmegaConf.select(config, key)
        if isinstance(value, str) and value.startswith("~"):
            raise ConfigError(tilde(key, value))


def refuse_renamed(run: Composed) -> None:
    """The name of a choice decides its type: regime.name=full would keep the adapter's fields under another name."""
    for group, types in subtypes().items():
        node = getattr(run, group)
        refuse_unknown(group, node.name)
        if types.get(node.name) is not type(node):
            raise ConfigError(f"{group}.name={node.name} does not belong to the chosen {group}. Write {group}=CHOICE, one of: {', '.join(types)}.")


def refuse_unknown(group: str, name: str) -> None:
    """A choice of the user's own has a file, and where its group has a table it needs a row there too."""
    try:
        type_of(group, name)
    except MissingRow as error:
        raise ConfigError(f"{error} In a file that only changes values, keep the `name` of the choice that it starts from.") from error
    except KeyError:
        return  # refuse_renamed says which choices there are


def without_hydra(config: DictConfig) -> DictConfig:
    OmegaConf.set_readonly(config, False)
    OmegaConf.set_struct(config, False)
    config.pop("hydra", None)
    OmegaConf.set_struct(config, True)
    return config


def with_default_recipe(overrides: Sequence[str]) -> list[str]:
    """Overrides that name no recipe, no model and no data describe the demo."""
    named = {text.split("=", 1)[0].strip().lstrip("+~") for text in overrides}
    return [*overrides] if named & NAMING else [DEFAULT_RECIPE, *overrides]


def refuse_additions(overrides: Sequence[str]) -> None:
    """`+key` and `++key` would avoid the types, and `~key` would remove what every part relies on."""
    for text in overrides:
        if text.startswith(("+", "~")):
            key = text.lstrip("+~").split("=", 1)[0]
            raise ConfigError(f"{text}: `+key` and `~key` are not supported. Write key=value. {meant(key)}{ALL_KEYS}")


def parsed(overrides: Sequence[str]) -> list[Override]:
    """Overrides as Hydra's grammar reads them, but texts as they were written.

    Raises:
        ConfigError: naming the one that is not key=value, and a number where true or false belongs.
    """
    unreadable_words = in_pieces(overrides) or too_many_digits(overrides)
    if unreadable_words is not None:
        raise ConfigError(unreadable_words)
    given = read(overrides)
    for override in given:
        odd = None if override.is_sweep_override() else odd_value(override.key_or_group, override.value())
        if odd is not None:
            raise ConfigError(odd)
    written = [as_written(override) for override in given]
    return given if written == [*overrides] else read(written)


def read(overrides: Sequence[str]) -> list[Override]:
    try:
        return [as_read(text) for text in overrides]
    except OverrideParseException as error:
        raise ConfigError(unreadable(str(error.override))) from error
    except HydraException as error:
        raise ConfigError(first_line(error)) from error


@lru_cache(maxsize=KEPT)
def as_read(text: str) -> Override:
    """Composing reads each override twice, and a process that composes forms reads most of them many times."""
    return OverridesParser.create().parse_overrides([text])[0]


def refuse_no_choice(override: Override, config_dirs: Sequence[Path]) -> None:
    """Hydra fails on `regime=null` without naming the key, merges the choices of a list into one, and lets a choice be renamed."""
    key, text = override.key_or_group, override.input_line
    if key == "":
        raise ConfigError(f"{text!r} names no key. Write key=value.")
    if key.endswith(".name") and key.removesuffix(".name") in subtypes():
        group = key.removesuffix(".name")
        raise ConfigError(f"{text}: the name of a choice cannot be set. Write {group}=CHOICE, one of: {', '.join(subtypes()[group])}.")
    if override.is_sweep_override():
        return
    value = override.value()
    if key == "model.architecture" and isinstance(value, dict):  # omegaconf 2.3 cannot merge a table into null
        raise ConfigError(f"{key} is too long for a command line. Write it to a file FOLDER/model/NAME.yaml, and use --config-dir FOLDER model=NAME.")
    if key not in (*GROUPS, "recipe"):
        return
    if value is None or isinstance(value, (int, float)) or (isinstance(value, list) and key != "recipe"):
        raise ConfigError(f"{text}: {key} needs exactly one choice. Use one of: {', '.join(choices(key, config_dirs))}.")


def refuse_sweep_settings(overrides: Sequence[str]) -> None:
    for text in overrides:
        if re.match(r"hydra[./]", text):
            raise ConfigError(f"{text} is a setting of sweeps and has no effect on one run. Use it with -m, of `regimen train` or `regimen plan`.")


def refuse_secrets(overrides: Sequence[str]) -> None:
    refuse_secret("\n".join(overrides), os.environ)


def refuse_secret(text: str, environment: "os._Environ[str]") -> None:
    """No configuration value needs a secret: libraries read theirs from the environment.

    Raises:
        Unsafe: when `text` holds the value of a secret variable, or what looks like a token; the message never shows it.
    """
    for name, value in environment.items():
        if SECRET_NAME.search(name) and len(value) >= 8 and value in text:
            raise Unsafe(f"The configuration holds the value of ${name}. Remove it. It is read from the environment.")
    shape = shape_of_secret(text)
    if shape:
        raise Unsafe(
            f"The configuration holds what looks like an access token ({shape}). Set it in the environment instead (HF_TOKEN, WANDB_API_KEY)."
        )
