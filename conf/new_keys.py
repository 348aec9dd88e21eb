"""Keys that a run.yaml lacks because it is older than they are: each gets the default of its group."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import yaml

from conf.choices import type_of
from conf.groups import built_in_choices, default_choices
from conf.schema import GROUPS

# A start settles these, so an open default (null) says nothing about a run that is older than they are: what every run did before each of them.
BEFORE = {"training.kernels": "plain"}


def new_keys(values: Mapping[str, Any]) -> dict[str, Any]:
    """Each key that is not in the recorded groups, with its default; keys without a default are left out, and so is what a whole group lacks.

    Raises:
        KeyError: for a choice that no table knows.
    """
    found = {}
    for group in GROUPS:
        there = values.get(group)
        if not isinstance(there, dict):
            continue
        name = str(there.get("name", ""))
        for field in fields(type_of(group, name)):
            if field.name not in there:
                default = default_of(group, name, field.name)
                if default is not None:
                    found[f"{group}.{field.name}"] = yaml.safe_load(default)
    return found


def default_of(group: str, name: str, key: str) -> str | None:
    """What runs did before the key; else as the choice of this name writes it, or where it is the user's own, the default choice of the group, or any
    that has the key."""
    from conf.keys import yaml_lines  # most runs lack no key

    if f"{group}.{key}" in BEFORE:
        return BEFORE[f"{group}.{key}"]
    for choice in (name, default_choices().get(group, ""), *built_in_choices(group)):
        written = yaml_lines(group, choice).get(key, ("", ""))[0] if choice in built_in_choices(group) else ""
        if written:
            return written
    return None


def with_new_keys(values: dict[str, Any]) -> dict[str, Any]:
    """The same values with the default of each key that they lack."""
    filled = {key: dict(value) if isinstance(value, dict) else value for key, value in values.items()}
    for key, default in new_keys(values).items():
        group, field = key.split(".")
        filled[group][field] = default
    return filled
