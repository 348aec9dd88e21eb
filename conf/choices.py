"""Which type the settings of a choice have, and its defaults."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from conf.optimizers import optimizer_row, optimizer_types
from conf.regimes import REGIMES, regime_row
from conf.schema import PLAIN_GROUPS, SUBTYPES
from conf.shardings import SETTINGS, sharding_row, sharding_types
from conf.stages import STAGES, stage_row

FOLDER = Path(__file__).parent


def subtypes() -> dict[str, Mapping[str, type]]:
    """Of every group whose choices have types of their own: the type of each choice."""
    stages, regimes = ({name: row.settings for name, row in STAGES.items()}, {name: row.settings for name, row in REGIMES.items()})
    return {"stage": stages, "regime": regimes, **SUBTYPES, "optim": optimizer_types(), "sharding": sharding_types()}


def type_of(group: str, name: str) -> type:
    """The type of `group=name`.

    Raises:
        KeyError: for a choice that no table knows.
    """
    if group == "stage":
        return stage_row(name).settings
    if group == "regime":
        return regime_row(name).settings
    if group == "optim":
        return optimizer_row(name).settings
    if group == "sharding":
        return SETTINGS[sharding_row(name).engine]
    return SUBTYPES[group][name] if group in SUBTYPES else PLAIN_GROUPS[group]


@cache
def choice(group: str, name: str) -> Any:
    """The typed default of a choice as its YAML file states it."""
    values = yaml.safe_load((FOLDER / group / f"{name}.yaml").read_text(encoding="utf-8"))
    del values["defaults"]
    return type_of(group, name)(**values)


def has_file(group: str, name: str) -> bool:
    return (FOLDER / group / f"{name}.yaml").is_file()
