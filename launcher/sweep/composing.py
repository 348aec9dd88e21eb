"""Runs composed quickly: Hydra composes equal choices and texts once, and numbers and truths are set through the typed nodes of its result.

What cannot be set so is composed as every run is, and so is what fails: the message is that of a run alone.
"""

import math
import re
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from conf.schema import GROUPS, Composed
from launcher.composition.compose import compose, compose_config, refuse_secrets, typed_run
from launcher.composition.names import field_type
from launcher.composition.values import odd_value
from launcher.errors import RegimenError

LIGHT = re.compile(rf"(?P<group>{'|'.join(GROUPS)})\.(?P<field>\w+)=(?P<value>[\w.+-]+)")  # neither a list, nor a table, nor a reference
LIGHT_TYPES = frozenset({"int", "float", "bool", "int | None", "float | None", "bool | None"})


@dataclass(frozen=True)
class Base:
    """What the other overrides of a point compose."""

    config: DictConfig
    run: Composed
    references: str  # every text that refers to another key


class Composer:
    """Remembers what it has composed: of one grid, or of a form that is changed step by step, for which the last `most` are enough."""

    def __init__(self, config_dirs: Sequence[Path], most: float = math.inf) -> None:
        self.config_dirs, self.most = config_dirs, most
        self.bases: dict[tuple[str, ...], Base | None] = {}

    def composed_or_refusal(self, overrides: Sequence[str]) -> Composed | RegimenError:
        """As composed_or_refusal of points.py."""
        try:
            return self.composed(overrides)
        except RegimenError as error:
            return error

    def composed(self, overrides: Sequence[str]) -> Composed:
        """As compose."""
        light = [text for text in overrides if is_light(text)]
        base = self.base(tuple(text for text in overrides if text not in light)) if light else None
        if base is not None:
            refuse_secrets(light)
            quick = with_light(base, light)
            if quick is not None:
                return quick
        return compose(overrides, self.config_dirs)

    def base(self, overrides: tuple[str, ...]) -> Base | None:
        """The one that was asked for last is the last to be forgotten."""
        self.bases[overrides] = self.bases.pop(overrides) if overrides in self.bases else self.composed_base(overrides)
        while len(self.bases) > self.most:
            del self.bases[next(iter(self.bases))]
        return self.bases[overrides]

    def composed_base(self, overrides: tuple[str, ...]) -> Base | None:
        """None where they compose nothing by themselves, or hold a table, which could set the same keys."""
        if any("={" in text for text in overrides):
            return None
        try:
            config = compose_config(overrides, self.config_dirs)
            return Base(config, typed_run(config), "\n".join(references(OmegaConf.to_container(config, resolve=False))))
        except RegimenError:
            return None


def references(values: object) -> list[str]:
    if isinstance(values, dict):
        return [text for value in values.values() for text in references(value)]
    if isinstance(values, list):
        return [text for value in values for text in references(value)]
    return [values] if isinstance(values, str) and "${" in values else []


@cache
def is_light(text: str) -> bool:
    """Whether an override sets a number or a truth of one group."""
    found = LIGHT.fullmatch(text)
    return found is not None and field_type(f"{found['group']}.{found['field']}") in LIGHT_TYPES


def with_light(base: Base, light: Sequence[str]) -> Composed | None:
    """The run with these values; None where one of them touches more than its own key, or is not of its type."""
    run = base.run
    for override in map(override_of, light):
        group, _, field = override.key_or_group.partition(".")
        node = base.config[group]._get_node(field) if group in base.config and field in base.config[group] else None
        if node is None or override.is_sweep_override() or re.search(rf"\b{field}\b", base.references):
            return None
        typed = typed_value(override.key_or_group, node, override.value())
        if typed is None:
            return None
        run = replace(run, **{group: replace(getattr(run, group), **{field: typed[0]})})
    return run


@cache
def override_of(text: str) -> Override:
    return OverridesParser.create().parse_override(text)


def typed_value(key: str, node: Any, value: object) -> tuple[Any] | None:
    """The value as the node's type has it; None where it has not."""
    if odd_value(key, value) is not None:
        return None
    typed = deepcopy(node)
    try:
        typed._set_value(value)
    except OmegaConfBaseException:
        return None
    return (typed._value(),)
