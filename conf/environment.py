"""Values that a configuration reads from the environment (`${oc.env:NAME}`): known to the process that uses them, and written as they were given.

OmegaConf resolves them to plain strings. Here each becomes a string that also knows its source, so that every file holds the source.
Numbers and true/false are written as they were read.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from conf.secrets import hide

RESOLVER = "oc.env"
NAMED = re.compile(r"\$\{oc\.env:\s*([A-Za-z_]\w*)")


class FromEnvironment(str):
    """A value that was read from the environment; `source` is what was written, such as `${oc.env:SCRATCH}/models`."""

    source: str

    def __new__(cls, value: str, source: str = "") -> "FromEnvironment":
        made = super().__new__(cls, value)
        made.source = source
        return made


def as_written(values: Any) -> Any:
    """Plain dicts and lists with the source of each value that was read from the environment."""
    if isinstance(values, FromEnvironment):
        return values.source
    if isinstance(values, dict):
        return {key: as_written(value) for key, value in values.items()}
    if isinstance(values, (list, tuple)):
        return type(values)(as_written(value) for value in values)
    return values


def to_object(config: DictConfig) -> Any:
    """As OmegaConf.to_object, with each string from the environment as FromEnvironment; from then on `masked` hides those.

    Raises:
        OmegaConfBaseException: as OmegaConf.to_object.
    """
    hide_named(config)
    made = OmegaConf.to_object(config)
    if not any(RESOLVER in text for text in texts_in(config)):
        return made
    folder = f"{getattr(made, 'output', '')}/{getattr(made, 'name', '')}"
    for value, source in mark(config, made):
        hide_parts(value, source, folder)
    return made


def mark(node: Any, made: Any) -> list[tuple[str, str]]:
    """Replace strings in `made`, the object of `node`, by those that know their source; returns each with its source."""
    found: list[tuple[str, str]] = []
    for key in list(node) if isinstance(node, DictConfig) else range(len(node)) if isinstance(node, ListConfig) else ():
        if OmegaConf.is_missing(node, key):
            continue
        value = getattr(made, str(key)) if is_dataclass(made) else made[key]
        if isinstance(value, str):
            source = source_of(node, key, value) if OmegaConf.is_interpolation(node, key) else value
            if source != value:
                put(made, key, FromEnvironment(value, source))
                found.append((value, source))
        elif value is not None and not isinstance(value, (bool, int, float)):
            found += mark(node[key], value)
    return found


def hide_named(config: DictConfig) -> None:
    """Hide the variables of a configuration that may turn out to be wrong: its error is a message too."""
    named = [name for text in texts_in(config) for name in NAMED.findall(text)]
    of_folder = [node for key in ("output", "name") if (node := config._get_node(key, validate_access=False)) is not None]
    in_folder = [name for node in of_folder for text in texts_in(node) for name in NAMED.findall(text)]
    for name in named:
        if name not in in_folder and not os.environ.get(name, "/").startswith("/"):
            hide(os.environ[name], f"${{{RESOLVER}:{name}}}")


def texts_in(node: Any) -> Iterator[str]:
    """Every text of a configuration as it was written. OmegaConf's own copy to plain values takes many times as long, and a plan is waited for."""
    content = node._value()
    if isinstance(content, str):
        yield content
    elif isinstance(content, (dict, list)):
        for child in content.values() if isinstance(content, dict) else content:
            yield from texts_in(child)


def put(made: Any, key: Any, value: str) -> None:
    if is_dataclass(made):
        setattr(made, key, value)
    else:
        made[key] = value


def source_of(node: Any, key: Any, value: str) -> str:
    """The value with everything resolved but the environment."""
    raw = str(OmegaConf.to_container(node, resolve=False)[key])  # type: ignore[index]
    try:
        with environment_kept():
            written = str(node[key])
    except OmegaConfBaseException:
        return raw if RESOLVER in raw else value
    return raw if written == value and RESOLVER in raw else written


@contextmanager
def environment_kept() -> Iterator[None]:
    """Meanwhile `${oc.env:NAME}` stands for itself."""
    from omegaconf.resolvers import oc

    OmegaConf.register_new_resolver(RESOLVER, kept, replace=True)
    try:
        yield
    finally:
        OmegaConf.register_new_resolver(RESOLVER, oc.env, replace=True)


def kept(name: str, *default: Any) -> str:
    return f"${{{RESOLVER}:{','.join([name, *map(str, default)])}}}"


def hide_parts(value: str, source: str, folder: str) -> None:
    """The whole value, and each variable in it but folders, whose names are in many paths. What names the run's own folder cannot be hidden."""
    parts = {name: os.environ.get(name, "") for name in NAMED.findall(source)}
    shown = {value: source, **{part: f"${{{RESOLVER}:{name}}}" for name, part in parts.items() if not part.startswith("/")}}
    for text, instead in shown.items():
        if text not in folder:
            hide(text, instead)


def open_keys(run: Any, group: str = "") -> list[str]:
    """`key=source` of each value of a run that is read from the environment."""
    found: list[str] = []
    for each in fields(run):
        value = getattr(run, each.name)
        if isinstance(value, FromEnvironment):
            found.append(f"{group}{each.name}={value.source}")
        elif is_dataclass(value):
            found += open_keys(value, f"{each.name}.")
        elif as_written(value) != value:
            found.append(f"{group}{each.name}={as_written(value)}")
    return found
