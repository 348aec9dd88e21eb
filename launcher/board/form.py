"""The form of a new run: its fields, made of conf/schema.py and the YAML files, and what it says in the words of the command line.

A form is texts by key or choice, such as {"regime": "lora", "regime.rank": "32"}, each written as in a file of a run (docs/guides/run_files.md).
"""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml
from yaml import Node, ScalarNode

from conf.groups import built_in_choices, default_choices
from conf.keys import KeyRow, choice_help, field_of, group_help, key_rows, types_of
from conf.schema import GROUPS, Composed
from launcher.composition.described import CHOICES, yaml_text
from launcher.composition.read_yaml import nodes_of
from launcher.composition.run_file import line_of
from launcher.composition.values import type_of
from launcher.errors import ConfigError, Unsafe

PLACE = "the form"
PATHS = ("output", "model.path", "model.tokenizer", "data.folder", "data.cache", "regime.adapter", "stage.reward_model")
LISTS_OF_PATHS = ("data.sets", "data.evaluation_sets")
DATA_FOLDER = "data"  # what conf/data says of data.folder
CODE = ("stage.reward_packages",)  # which is imported
ORDER = ("model", "stage", "data", "regime", "training", "optim", "sharding", "node", "cluster", "evaluation", "checkpoint")
LONGEST = 10_000  # characters of a key and its value
ODD = re.compile("[\0\ud800-\udfff]")  # what neither an argument of a program nor UTF-8 can hold
BOOLEAN = ("true", "false")
PLAIN = re.compile(r"(?<![^\[,])'([A-Za-z_][A-Za-z0-9_./-]*)'(?![^,\]])")  # a text, also in a list, that Hydra's grammar needs no quotes for
READ_OTHERWISE = (*BOOLEAN, "null", "nan", "inf")


@dataclass(frozen=True)
class Field:
    key: str
    name: str  # the last part of the key
    help: str
    unit: str
    options: tuple[str, ...]  # the only values; empty: any text
    default: str


@dataclass(frozen=True)
class Section:
    group: str
    help: str
    choices: tuple[tuple[str, str], ...]  # name and what it is; empty where there is one choice alone
    default: str  # the choice that counts where none is made; empty: one must be made


def sections() -> list[Section]:
    """The groups in the order in which a run is thought of."""
    every = [field.name for field in fields(Composed) if field.name in GROUPS]
    return [section(group) for group in sorted(every, key=lambda group: (ORDER.index(group) if group in ORDER else len(ORDER), every.index(group)))]


def section(group: str) -> Section:
    names = [name for name, _ in types_of(group)]
    choices = tuple((name, choice_help(group, name)) for name in names) if len(names) > 1 else ()
    return Section(group, group_help(group), choices, default_choices().get(group, ""))


def fields_of(group: str, choice: str) -> list[Field]:
    """The keys that this choice of the group has.

    Raises:
        ConfigError: for what is no group or no choice of it.
    """
    if group not in GROUPS or choice not in built_in_choices(group):
        raise ConfigError(f"{group}={choice} is not a choice. Reload the page.")
    return [field(row, choice) for row in key_rows(group, {}) if choice in row.choices and row.key not in CODE]


def field(row: KeyRow, choice: str) -> Field:
    options = row.values or (BOOLEAN if row.type.split(",")[0] == "true or false" else ())
    default = dict(row.defaults)[choice]
    return Field(row.key, row.key.rpartition(".")[2], row.help, row.unit, options, "" if default == "???" else default)


def first_choice(group: str) -> str:
    return default_choices().get(group) or built_in_choices(group)[0]


def name_help(key: str) -> str:
    return field_of(Composed, key).comment.help


def overrides_of(form: Mapping[str, Any]) -> list[str]:
    """What the form says, as words of the command line: its choices first.

    Raises:
        ConfigError: naming a key that is not known, with the nearest one, or a value that cannot be read.
        Unsafe: for what the page does not take.
    """
    for key, text in form.items():
        if not isinstance(text, str):
            raise ConfigError(f"{PLACE}: {key} is not a text.")
        if len(key) + len(text) > LONGEST:
            raise ConfigError(f"{PLACE}: {key[:40]} has more than {LONGEST:,} characters. Write such a value in a file of the run.")
        if ODD.search(key + text):
            raise ConfigError(f"{PLACE}: a key or a value holds NUL or half a character.")
        refuse_unsafe(key, text)
    lines = [line_of(key, node_of(key, text), PLACE) for key, text in form.items()]
    return [with_few_quotes(line.text) for line in sorted(lines, key=lambda line: line.key not in CHOICES)]


def with_few_quotes(override: str) -> str:
    """key=value where key='value' says the same in Hydra's grammar: a shell needs quotes around quotes, and people read the command."""
    key, _, value = override.partition("=")
    return f"{key}={PLAIN.sub(lambda found: found[0] if found[1].lower() in READ_OTHERWISE else found[1], value)}"


def refuse_unsafe(key: str, text: str) -> None:
    if key in CODE:
        raise Unsafe(f"{key} names code that is run, so the page does not take it. Start such a run on the command line.")
    if "${" in text:
        raise Unsafe(f"{key}: the page takes plain values, and ${{...}} refers to others. Start such a run on the command line.")


def node_of(key: str, text: str) -> Node:
    """The text as YAML reads it where the key takes more than one text."""
    plain = ScalarNode("tag:yaml.org,2002:str", text)
    if key in CHOICES or type_of(key) == "str":
        return plain
    try:
        return nodes_of(text, f"{PLACE}: {key}") or plain
    except yaml.YAMLError as error:
        raise ConfigError(f"{PLACE}: {key}={text} cannot be read: {' '.join(str(error).split())}.") from error
    except RecursionError as error:
        raise ConfigError(f"{PLACE}: {key} holds more brackets in each other than can be read.") from error


def form_of(values: Mapping[str, Any]) -> dict[str, str]:
    """The form that says the same as choices and values by key."""
    return {key: value if isinstance(value, str) else yaml_text(value) for key, value in values.items()}


LONGEST_PATH, LONGEST_NAME = 4095, 255  # bytes; limits.h of Linux


def refuse_outside(form: Mapping[str, str], folder: Path, roots: Sequence[Path]) -> None:
    """What a run reads or writes must lie below the folders that the board was started for. The form was read before: its texts are YAML.

    Raises:
        Unsafe: naming the key, the path and the option that allows it.
    """
    named = [(name, form[name]) for name in PATHS if name in form]
    listed = [(name, entry) for name in LISTS_OF_PATHS if name in form for entry in entries(form[name])]
    of_sets = folder / os.path.expanduser(form.get("data.folder", DATA_FOLDER))
    for key, value in [*named, *listed]:
        if "\0" in value or len(value.encode()) > LONGEST_PATH or any(len(part.encode()) > LONGEST_NAME for part in value.split("/")):
            raise Unsafe(
                f"{key}={value[:40]!r}... is no path: it may have {LONGEST_PATH} bytes, {LONGEST_NAME} between two slashes, and none that is 0."
            )
        places = (folder, of_sets) if key in LISTS_OF_PATHS else (folder,)
        paths = [(place / os.path.expanduser(value)).resolve() for place in places]
        if not all(any(path.is_relative_to(root.resolve()) for root in roots) for path in paths):
            raise Unsafe(f"{key}={value} is outside of the folders of this board. Allow that one when you start it: regimen board --root FOLDER")


def entries(text: str) -> list[str]:
    found = yaml.safe_load(text)
    return [str(entry) for entry in found] if isinstance(found, list) else [str(found)]
