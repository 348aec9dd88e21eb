"""What the texts and lists of a run must hold, whatever their keys mean."""

import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any

from conf.schema import Composed
from launcher.errors import ConfigError

FOLDER_NAME = re.compile(r"\w[\w.+=,@-]{0,199}")  # file names end at 255 bytes, and a sweep adds to the name


def refuse_odd_name(run: Composed) -> None:
    if FOLDER_NAME.fullmatch(run.name) is None:
        raise ConfigError(
            f"name={run.name!r} cannot be the name of a folder. Use at most 200 letters, digits and . _ + = , @ -, and begin with a letter or digit."
        )


def refuse_odd_output(run: Composed) -> None:
    if not run.output.strip():
        raise ConfigError("output is empty. Set it to a folder. Runs are kept in output/NAME/TIME.")
    if any(not character.isprintable() for character in run.output):
        raise ConfigError(f"output={run.output!r} holds a character that cannot be shown. Set it to a folder without it.")


def refuse_lists_in_lists(run: Composed) -> None:
    """OmegaConf takes a list for a text where the text is in a list."""
    for key, value, _ in values_of(run):
        if isinstance(value, list) and any(isinstance(one, (list, dict)) for one in value):
            raise ConfigError(f"{key}={value} is not possible. It must be a list of single values, without lists or tables in it.")


def refuse_empty_texts(run: Composed) -> None:
    """A text of nothing but spaces would name the folder at hand, or nothing: what is left out is null."""
    for key, value, may_be_null in values_of(run):
        if isinstance(value, str) and not value.strip():
            raise ConfigError(f"{key} is an empty text. {'Set it to null, or' if may_be_null else 'Leave it out, or'} give it a value.")
        if isinstance(value, list) and any(isinstance(one, str) and not one.strip() for one in value):
            raise ConfigError(f"{key}={value} holds an empty text. Remove it from the list.")


def values_of(run: Composed) -> Iterator[tuple[str, Any, bool]]:
    """Every key of a group, its value, and whether it may be null."""
    for group in fields(run):
        choice: Any = getattr(run, group.name)
        for name, may_be_null in nullable(choice.__class__) if is_dataclass(choice) else ():
            yield f"{group.name}.{name}", getattr(choice, name), may_be_null


@cache
def nullable(choice: type[Any]) -> tuple[tuple[str, bool], ...]:
    """Each field of the dataclass, and whether it may be null."""
    return tuple((field.name, "None" in str(field.type)) for field in fields(choice))
