"""--config-dir: groups of the user's own. What a file leaves out comes from the built-in choice of its group that it starts from."""

import difflib
import re
import sys
from dataclasses import fields
from functools import cache
from pathlib import Path

from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra._internal.sources_registry import SourcesRegistry
from hydra.plugins.config_source import ConfigResult
from omegaconf import Container, DictConfig, ListConfig, OmegaConf

from conf.groups import CONF, default_choices
from conf.schema import GROUPS, PLAIN_GROUPS
from launcher.composition.values import odd_in_file
from launcher.errors import ConfigError

SCHEME = "own"
# What a file without a defaults list starts from: the group's default, and where that has none or asks a machine, the choice that leaves most open.
BASES = {"model": "local", "data": "files", "node": "cpu"}
PLACES = (*GROUPS, "recipe", "hydra/launcher", "hydra/sweeper")


class OwnGroups(FileConfigSource):
    """Hydra's own source of files, with the defaults list that a file of one group leaves out."""

    @staticmethod
    def scheme() -> str:
        return SCHEME

    def load_config(self, config_path: str) -> ConfigResult:
        result = super().load_config(config_path)
        group, _, name = config_path.removesuffix(".yaml").rpartition("/")
        refuse_odd_values(Path(self.path, f"{group}/{name}.yaml"), "" if group == "recipe" else f"{group}.", result.config)
        if group == "recipe":
            result.header.setdefault("package", "_global_")
            result.header["package"] = result.header["package"] or "_global_"
            refuse_choices(Path(self.path, f"recipe/{name}.yaml"), result.config)
        elif group in GROUPS and isinstance(result.config, DictConfig) and "defaults" not in result.config:
            base, file = base_of(group, result.config), Path(self.path, f"{group}/{name}.yaml")
            refuse_uncounted(group, file, result.config)
            from conf.keys import yaml_lines  # most runs have no file of their own

            left_out = [key for key in yaml_lines(group, base) if key not in (*result.config, "defaults", "name")]
            result.config = filled(group, name, base, result.config)
            if left_out:
                which = "which is" if len(left_out) == 1 else "which are"
                tell(f"note: {file} has no defaults list. It leaves out {', '.join(left_out)}, {which} as in {group}={base}.")
        return result


def refuse_odd_values(file: Path, before: str, given: Container) -> None:
    """Raises ConfigError for a value that the type of its key would change; `before` is the part of each key that the file's place says."""
    for name, value in given.items_ex(resolve=False) if isinstance(given, DictConfig) else ():
        key = before + str(name)
        if isinstance(value, DictConfig):
            refuse_odd_values(file, f"{key}.", value)
        odd = odd_in_file(key, value)
        if odd is not None:
            raise ConfigError(f"In {file}: {odd}")


def refuse_choices(file: Path, recipe: Container) -> None:
    """Raises ConfigError for a choice that stands where Hydra does not look for it, with the line that makes it."""
    if not isinstance(recipe, DictConfig):
        return
    listed = recipe.get("defaults")
    entries = [entry for entry in listed if isinstance(entry, DictConfig)] if isinstance(listed, ListConfig) else []
    chosen = [(re.sub("^/|^override (?!/)", "", str(key)), entry[key]) for entry in entries for key in entry]
    chosen += [(str(key), recipe[key]) for key in recipe if not isinstance(recipe[key], DictConfig)]
    for group, choice in chosen:
        if group in GROUPS:
            raise ConfigError(f"In {file}: the choice {group}: {choice} is made in the defaults list. Write there: - override /{group}: {choice}")


def filled(group: str, name: str, base: str, given: DictConfig) -> Container:
    """The same file on its base; where the name only labels the choice, that of the file."""
    labelled = group in PLAIN_GROUPS and "name" in {field.name for field in fields(PLAIN_GROUPS[group])}
    merged = OmegaConf.merge({"defaults": [base, "_self_"], **({"name": name} if labelled else {})}, given)
    assert isinstance(merged, DictConfig)
    return merged


def base_of(group: str, given: DictConfig) -> str:
    if group == "node" and given.get("auto"):
        return "auto"
    return BASES.get(group) or default_choices()[group]


def refuse_uncounted(group: str, file: Path, given: DictConfig) -> None:
    """Raises ConfigError for a node of GPUs without their number: its base has none."""
    if group == "node" and "gpus" not in given and not given.get("auto") and {"gpu_memory", "gpu_name", "tflops"} & set(given):
        raise ConfigError(f"{file} describes GPUs and does not say how many. Add the line `gpus: 8`, with their number.")


@cache
def tell(line: str) -> None:
    """Once in a process, however often a file is read; a plan for programs stands on the other stream."""
    print(line, file=sys.stderr, flush=True)


def register_source() -> None:
    registry = SourcesRegistry.instance()
    if SCHEME not in registry.types:
        registry.register(OwnGroups)


def refuse_folder(folder: Path) -> None:
    """A folder of the user's own groups must be one, and every choice in it must be found.

    Raises:
        ConfigError: naming the file that would be left out, and where it belongs.
    """
    if not folder.is_dir():
        raise ConfigError(f"--config-dir {folder} is not a folder. Give the folder that holds your groups.")
    for path in sorted(folder.glob("*/*.yaml")):
        if (CONF / path.relative_to(folder)).exists():
            raise ConfigError(f"{path} has the name of a built-in choice, which would be used instead. Rename the file.")
        refuse_near_group(path)
    for path in folder.glob("*/*.yml"):
        raise ConfigError(f"{path} would not be read, because choices are files that end in .yaml. Rename it.")
    if not any(True for place in PLACES for _ in (folder / place).glob("*.yaml")):
        raise ConfigError(f"--config-dir {folder} holds no choice of a group. {where_they_belong(folder)}")


def refuse_near_group(path: Path) -> None:
    """Raises ConfigError for a folder whose name is almost that of a group: nothing in it would be read."""
    name = path.parent.name
    near = difflib.get_close_matches(name.lower(), (*GROUPS, "recipe"), n=1, cutoff=0.8)
    if near and name not in (*GROUPS, "recipe", "hydra"):
        raise ConfigError(f"{path} would not be read, because {name} is not a group. Rename the folder to {near[0]}.")


def where_they_belong(folder: Path) -> str:
    if folder.resolve().name in (*GROUPS, "recipe") and any(folder.glob("*.yaml")):
        return f"It is a group itself. Give the folder above it: --config-dir {folder.parent if folder.name else folder.resolve().parent}"
    return f"A choice is a file such as {folder}/model/NAME.yaml (docs/reference/own_groups.md). Make one there, or give a different folder."
