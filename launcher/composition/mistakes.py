"""What is wrong with a composition, in words, and the line that works in its place."""

import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import fields

from hydra.errors import ConfigCompositionException, MissingConfigException
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from conf.choices import subtypes
from conf.groups import built_in_choices
from conf.schema import GROUPS
from launcher.composition.names import field_type, known_keys, nearest_choices, nearest_key
from launcher.composition.spelling import line_for, llamafactory, llamafactory_choice, own_line
from launcher.composition.values import value_message

ALL_KEYS = "`regimen train --cfg` shows every key."
# Hydra's text about a YAML file whose values do not fit the types; the exception itself is not kept.
IN_FILE = re.compile(r"In '(?P<file>[^']+)': (?P<kind>\w+) raised while composing config:\n(?P<said>[^\n]*)(\n +full_key: (?P<key>[^\n]*))?")
UNCHOSEN = re.compile(r"You must specify '(?P<group>[^']+)'.*Available options:(?P<options>.*)", re.DOTALL)
SEVERAL = re.compile(r"Ambiguous value for argument '(?P<text>(?P<key>[^=]+)=(?P<value>.*))'")
# What a key needs that has no value of its own, as one types it.
NEEDED = {
    "data.sets": "'data.sets=[FILE]', with a file, a name of the registry or a hub id",
    "model.path": "model.path=FOLDER_OR_HUB_ID",
}
# How a group is chosen that has no default.
CHOOSE = {
    "data": "Add data=files 'data.sets=[FILE]' for data of your own, or data=demo for the data of the demo.",
    "model": "Add a preset such as model=qwen2.5_0.5b, or model=local model.path=FOLDER_OR_HUB_ID for any other model.",
}


def missing_choice(error: MissingConfigException) -> str:
    wanted = error.missing_cfg_file or ""
    group = next((group for group in (*GROUPS, "recipe", "hydra/launcher", "hydra/sweeper") if wanted.startswith(f"{group}/")), None)
    unloaded = re.match(r"In '(?P<file>[^']+)': Could not load '(?P<group>[^']+)/(?P<name>[^'/]+)'", str(error))
    if unloaded is not None and unloaded["group"] in GROUPS:
        choices = built_in_choices(unloaded["group"])
        near = " or ".join(nearest_choices(unloaded["name"], choices)) or "one of them"
        said = f"{unloaded['file']}.yaml starts from {unloaded['name']}, which is not a choice. Did you mean {near}?"
        return f"{said} {unloaded['group']} is one of: {', '.join(choices)}."
    if group is None or error.options is None:
        return first_line(error)
    if not error.options:  # a defaults list with `CHOICE: something`
        return f"A defaults list of a file of {group} holds the names of choices alone. Write: defaults: [{wanted.split('/')[1]}, _self_]"
    name = wanted.removeprefix(f"{group}/")
    said = f"{group}={name} is not a choice. "
    own = own_line(group, name)
    if own:
        return f"{said}Write: {own}"
    if (group, name) == ("hydra/sweeper", "optuna"):
        return f"{said}It comes with a package of its own, for this Python: {sys.executable} -m pip install hydra-optuna-sweeper"
    near = " or ".join(f"{group}={choice}" for choice in nearest_choices(name, error.options))
    return f"{said}{f'Did you mean {near}? ' if near else ''}{group} is one of: {', '.join(sorted(error.options))}.{llamafactory_choice(group, name)}"


def composition_message(error: ConfigCompositionException, given: Sequence[str]) -> str:
    """`given`: the overrides, whose values the message shows."""
    cause, text = error.__cause__, str(error)
    values = dict(override.split("=", 1) for override in given if "=" in override)
    in_file = IN_FILE.match(text)
    if in_file is not None and in_file["file"].startswith("recipe/") and is_of_another_choice(in_file["key"] or ""):
        return recipe_message(in_file["file"].removeprefix("recipe/"), in_file["key"], values)
    if in_file is not None:
        return f"In {in_file['file']}.yaml: {file_message(in_file['kind'], in_file['said'], in_file['key'] or '')}"
    overridden = re.search(r"Could not override '([^']+)'", text)
    if overridden is not None:
        return unknown_key(overridden[1], values.get(overridden[1]))
    if isinstance(cause, (ConfigAttributeError, ConfigKeyError)):
        return unknown_key(cause.full_key or text, values.get(str(cause.full_key)))
    if isinstance(cause, OmegaConfBaseException):
        return value_message(cause.full_key or "A value", first_line(cause), values.get(str(cause.full_key)))
    several = SEVERAL.match(text)
    if several is not None:
        key, value = several["key"], several["value"]
        return several_values(key, value) if key in known_keys() else unknown_key(key, value)
    unchosen = UNCHOSEN.match(text)
    if unchosen is not None:
        return unchosen_message(unchosen["group"], unchosen["options"].split(), values)
    return first_line(error)


def is_of_another_choice(key: str) -> bool:
    return 0 < len(choices_with(key)) < len(subtypes()[key.split(".")[0]])


def recipe_message(recipe: str, key: str, values: dict[str, str]) -> str:
    """A recipe sets a key of a choice that an override has replaced. Without a model and data the demo's recipe is used."""
    group = key.split(".")[0]
    chosen = f"{group}={values[group]}" if group in values else f"the chosen {group}"
    out = " and ".join(f"{group}={choice}" for choice in choices_with(key))
    instead = "its choices in its place: model=demo data=demo" if recipe == "demo" else "its other choices and keys without it"
    return f"recipe={recipe} sets {key}, which {chosen} does not have ({out} do). Leave {group} as the recipe has it, or write {instead} {chosen}"


def unchosen_message(group: str, options: Sequence[str], values: dict[str, str]) -> str:
    if group == "data" and "data.sets" in values:
        return "data has no choice. For the given data.sets, add: data=files"
    if group == "model" and "model.path" in values:
        return "model has no choice. For the given model.path, add: model=local"
    return f"{group} has no choice. {CHOOSE.get(group, f'Set {group}=CHOICE.')} {group} is one of: {', '.join(options)}."


def uncomposed_message(error: BaseException) -> str:
    """For the bare built-in errors of Hydra."""
    listed = re.match(r"Invalid defaults list in '(?P<group>[^']+)/(?P<name>[^'/]+)', defaults must be a list", first_line(error))
    if listed is not None:
        first = "- override /model: CHOICE" if listed["group"] == "recipe" else "[CHOICE, _self_]"
        return f"In {listed['group']}/{listed['name']}.yaml: defaults must be a list. Write: defaults: {first}"
    return f"The configuration cannot be composed: {first_line(error)}"


def missing_value(key: str) -> str:
    return f"{key} has no value. Set {NEEDED.get(key, f'{key}=VALUE')}."


def several_values(key: str, value: str) -> str:
    if field_type(key).startswith("list"):
        return f"{key}={value} gives several values. A list is written in brackets: {line_for(key, value)}"
    given = shlex.quote(f"{key}={value}")
    started, shown = f"Write: regimen train -m {given}", f"regimen plan -m {given} to see first what it would do."
    return f"{key}={value} gives several values, which make a sweep of several runs. {started}, or {shown}"


def file_message(kind: str, said: str, key: str) -> str:
    """What is wrong in a file of the user's own, and the line that belongs there."""
    group, _, field = key.partition(".")
    there = choices_with(key)
    if "is not a ListConfig" in said:
        return f"{key} must be a list. Write: {field}: [FIRST, SECOND]"
    if kind not in (ConfigKeyError.__name__, ConfigAttributeError.__name__):
        return value_message(key, said) if key else "the file is not a table of keys. Write lines of the form `key: value`."
    if " " in key:
        return f"`{field}` has no colon. Write: {': '.join(field.split(' ', 1))}"
    if field.split(".")[0] == group:
        return f"a file of the group {group} holds its keys without `{group}:` around them. Write them at the beginning of the line."
    if key in known_keys() and len(there) in (0, len(subtypes().get(group, {}))):
        return f"{key} has a dot. In a file, write {group}: on one line, and {field}: below it, two spaces to the right."
    if there:
        said = f"{key} is not a key of the choice that the file starts from, but of {group}={' or '.join(there)}."
        return f"{said} Begin the file with: defaults: [{there[0]}, _self_]"
    return f"{unknown_key(key, None)} docs/reference/own_groups.md shows such files."


def unknown_key(key: str, value: str | None) -> str:
    """Why `key` is not a key, or not a key of this choice, and which one may be meant."""
    there = choices_with(key)
    if there:
        group = key.split(".")[0]
        return (
            f"{key} is not a key of the chosen {group}, but of {group}={' or '.join(there)}. "
            f"Choose {group}={there[0]}, or leave {key} out. {ALL_KEYS}"
        )
    if key.startswith("model.architecture."):
        field = key.removeprefix("model.architecture.")
        return f"{key} is not in this model's architecture. Add it with: 'model.architecture={{{field}: VALUE}}'."
    if key == "resume":
        return "resume goes on with a run, which only `regimen train` and `regimen plan` can do. Leave it out here."
    return f"{key} is not a key. {llamafactory(key, value) or meant(key, value) + ALL_KEYS}"


def choices_with(key: str) -> list[str]:
    """The choices of the key's group whose type has it."""
    group, _, field = key.partition(".")
    return [name for name, node in subtypes().get(group, {}).items() if field in {there.name for there in fields(node)}]


def meant(key: str, value: str | None = None) -> str:
    """`Did you mean KEY=VALUE? ` with the nearest key, or nothing; of a switch without a value that it cannot have."""
    near = nearest_key(key)
    if near and value is not None and field_type(near) == "bool" and value.strip().lower() not in ("true", "false"):
        return f"Did you mean {near}, which is true or false? "
    return f"Did you mean {near if value is None else line_for(near, value)}? " if near else ""


def first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
