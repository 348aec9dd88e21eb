"""A composed run as the shortest list of choices and values that composes it again: what a file of a run holds."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from conf.constants import GENERATED
from conf.groups import built_in_choices, default_choices
from conf.keys import key_rows
from conf.run_values import run_as_dict
from conf.schema import GROUPS, Composed
from launcher.composition.compose import compose
from launcher.composition.names import preset_of
from launcher.composition.recorded import flat
from launcher.errors import ConfigError
from launcher.words import on_one_line

NAMED = ("stage", "regime", "optim", "sharding", "backend", "cluster", "tracking")  # `name` is the choice
CHOICES = (*GROUPS, "recipe")
SHOWN = ("stage", "regime")  # even where they are the default
ONE_START = "checkpoint.resume"  # where one start went on
OF_THE_MACHINE = "node."


def choices_of(run: Composed) -> dict[str, str]:
    """Stage, regime, and the choice of every other group that is not the default one."""
    named = {group: str(getattr(run, group).name) for group in NAMED}
    preset = preset_of(run.model.path) if run.model.path else run.model.name
    model = preset if preset in built_in_choices("model") else "local"
    node = "auto" if run.node.auto else run.node.name if run.node.name in built_in_choices("node") else "cpu"
    found = {"model": model, "data": "demo" if run.data.sets == [GENERATED] else "files", **named, "node": node}
    return {group: choice for group, choice in found.items() if group in SHOWN or choice != default_choices().get(group)}


def described(run: Composed) -> dict[str, Any]:
    """Choices first, then every value that differs from what those choices give, by its key.

    Raises:
        ConfigError: where the run has a choice of its user's own, which this list cannot name.
    """
    choices = choices_of(run)
    refuse_own_choices(run, choices)
    wanted = flat(run_as_dict(run))
    needed = {"data.sets": wanted["data.sets"]} if choices.get("data") == "files" else {}
    needed |= {"model.path": wanted["model.path"]} if choices.get("model") == "local" else {}
    start = compose([*(f"{group}={choice}" for group, choice in choices.items()), *(f"{key}={in_grammar(value)}" for key, value in needed.items())])
    given = flat(run_as_dict(start))
    changed = {key: value for key, value in wanted.items() if value != given.get(key) and key not in needed and key != ONE_START}
    if run.node.auto:
        changed = {key: value for key, value in changed.items() if not key.startswith(OF_THE_MACHINE)}
    return {**choices, **needed, **dict(spread(changed, given))}


def spread(changed: Mapping[str, Any], given: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The fields of a preset's architecture one by one; what settling has read from the model's files is read again."""
    for key, value in changed.items():
        if key != "model.architecture":
            yield key, value
        elif given.get(key):
            yield from ((f"{key}.{field}", there) for field, there in value.items() if given[key].get(field) != there)


def refuse_own_choices(run: Composed, choices: Mapping[str, str]) -> None:
    for group, choice in choices.items():
        if choice not in built_in_choices(group):
            raise ConfigError(f"{group}={choice} is a choice of a folder of your own, which a file of a run does not hold. Keep using --config-dir.")
    if choices.get("model") == "local" and run.model.path is None:
        raise ConfigError(
            f"The model {run.model.name} has no files: it was described in a folder of your own, which a file of a run does not hold. "
            "Keep using --config-dir."
        )


def in_grammar(value: Any, key: str = "") -> str:
    """A value of a run in Hydra's grammar."""
    if isinstance(value, list):
        return f"[{','.join(map(in_grammar, value))}]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{name}:{in_grammar(entry)}" for name, entry in value.items()) + "}"
    if isinstance(value, str):
        return value if key in CHOICES else quoted(value)
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def quoted(text: str) -> str:
    escaped = re.sub(r"(\\*)'", lambda found: found[1] * 2 + r"\'", text)  # Hydra: a backslash counts only before a quote
    trailing = re.search(r"\\+$", escaped)
    return f"'{escaped}{trailing[0] if trailing else ''}'"


def yaml_text(value: Any) -> str:
    """One value as YAML and Hydra's grammar both write it, on one line."""
    readable = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=float("inf")).removesuffix("\n").removesuffix("\n...")
    return readable if on_one_line(readable) == readable else yaml.safe_dump(value, default_flow_style=True, width=float("inf")).rstrip()


def as_file(values: Mapping[str, Any], head: str, notes: Mapping[str, str] | None = None) -> str:
    """The YAML text of a run file: the choices, then every other key below what docs/reference/keys.md says of it; `notes` stand beside keys."""
    rows, beside = helps(values), {key: f" # {on_one_line(note)}" for key, note in (notes or {}).items()}
    chosen = [f"{key}: {value}{beside.get(key, '')}" for key, value in values.items() if key in GROUPS]
    others = {key: f"{key}: {yaml_text(value)}{beside.get(key, '')}" for key, value in values.items() if key not in GROUPS}
    lines = [line for key, text in others.items() for line in ("", *rows.get(key, []), text)]
    return "\n".join([*(f"# {line}" for line in head.splitlines()), *chosen, *lines]) + "\n"


def helps(values: Mapping[str, Any]) -> dict[str, list[str]]:
    """The comment of each key that has a help."""
    groups = {key.split(".")[0] for key in values if "." in key}
    rows = {row.key: row.help for group in groups for row in key_rows(group, {})}
    told = {key: rows.get(".".join(key.split(".")[:2])) for key in values}
    return {key: [f"# {text}"] for key, text in told.items() if text}


def save(values: Mapping[str, Any], path: Path, head: str, notes: Mapping[str, str] | None = None) -> None:
    """Raises ConfigError where something of this name is there, or the folder cannot be written."""
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(as_file(values, head, notes))
    except FileExistsError as error:
        raise ConfigError(f"{path} exists. Give the file another name, or remove it.") from error
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}. Check the folder.") from error
