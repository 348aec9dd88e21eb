"""By what a later start of a sweep knows a point again: the configuration, whatever words it was given in."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from functools import cache
from typing import Any

import yaml

from conf.choices import type_of
from conf.new_keys import default_of
from conf.run_values import run_as_dict
from conf.schema import GROUPS, Composed
from launcher.errors import RegimenError


def fingerprint_of(described: Composed | RegimenError, overrides: Sequence[str]) -> str:
    """SHA-256 of the values that are not the defaults of their choices, in 16 hexadecimal digits.

    A point that cannot be composed is known by its overrides.
    """
    known: object = sorted(overrides) if isinstance(described, RegimenError) else distinctive(run_as_dict(described))
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:16]


def distinctive(values: Mapping[str, Any]) -> dict[str, Any]:
    """The choices, and each value that differs from the default of its choice: a key that a later version adds makes no other point of an old one."""
    found = {key: value for key, value in values.items() if key not in GROUPS}
    for group in GROUPS:
        name = str(values[group].get("name", ""))
        defaults = {key: value for key, value in defaults_of(group, name).items() if key != "name"}
        found |= {f"{group}.{key}": value for key, value in values[group].items() if key not in defaults or defaults[key] != value}
    return found


@cache
def defaults_of(group: str, name: str) -> dict[str, Any]:
    """The default of each key of a choice, where its YAML file or another one of the group says one."""
    written = {field.name: default_of(group, name, field.name) for field in fields(type_of(group, name))}
    return {key: as_typed(text) for key, text in written.items() if text is not None}


def as_typed(text: str) -> Any:
    """YAML 1.1 reads 1e-5 as a text."""
    value = yaml.safe_load(text)
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value
