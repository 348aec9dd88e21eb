"""What is wrong with a composition, in words, and the nearest name that is right."""

import difflib
import re
from collections.abc import Sequence
from dataclasses import fields

from hydra.errors import ConfigCompositionException, MissingConfigException
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from conf.choices import subtypes
from conf.schema import GROUPS, PLAIN_GROUPS

ALL_KEYS = "`regimen train --cfg` shows every key."
# Hydra's text about a YAML file whose values do not fit the types; the exception itself is not kept.
IN_FILE = re.compile(r"In '(?P<file>[^']+)': (?P<kind>\w+) raised while composing config:\n(?P<said>[^\n]*)(\n +full_key: (?P<key>\S*))?")
UNFIT = re.compile(r"Value '(?P<value>.*)' (of type '\w+' could not be converted to|is not a valid) (?P<type>Integer|Float|bool)\b")
WANTED = {"Integer": "a whole number", "Float": "a number", "bool": "true or false"}
UNCHOSEN = re.compile(r"You must specify '(?P<group>[^']+)'.*Available options:(?P<options>.*)", re.DOTALL)


def missing_choice(error: MissingConfigException) -> str:
    wanted = error.missing_cfg_file or ""
    group = next((group for group in (*GROUPS, "recipe", "hydra/launcher", "hydra/sweeper") if wanted.startswith(f"{group}/")), None)
    if group is None or error.options is None:
        return first_line(error)
    name = wanted.removeprefix(f"{group}/")
    listed = f"{group} is one of: {', '.join(sorted(error.options))}."
    return f"{group}={name} is not a choice. {did_you_mean(name, error.options)}{listed}{llamafactory_choice(group, name)}"


def composition_message(error: ConfigCompositionException) -> str:
    cause, text = error.__cause__, str(error)
    in_file = IN_FILE.match(text)
    if in_file is not None:
        return f"In {in_file['file']}.yaml: {file_message(in_file['kind'], in_file['said'], in_file['key'] or '')}"
    overridden = re.search(r"Could not override '([^']+)'", text)
    if overridden is not None:
        return unknown_key(overridden[1])
    if isinstance(cause, (ConfigAttributeError, ConfigKeyError)):
        return unknown_key(cause.full_key or text)
    if isinstance(cause, OmegaConfBaseException):
        return value_message(cause.full_key or "A value", first_line(cause))
    if text.startswith("Ambiguous value"):
        return f"{first_line(error)}. Several values are a sweep, which needs -m. Write a list as key=[a,b]."
    unchosen = UNCHOSEN.match(text)
    if unchosen is not None:
        return f"{unchosen['group']} has no choice. Set {unchosen['group']}=CHOICE, one of: {', '.join(unchosen['options'].split())}."
    return first_line(error)


def file_message(kind: str, said: str, key: str) -> str:
    if key.split(".")[0] == "recipe":
        return "a recipe sets keys of other groups. Begin the file with the line `# @package _global_`."
    if kind in (ConfigKeyError.__name__, ConfigAttributeError.__name__):
        return f"{unknown_key(key)} Begin a file of your own with a built-in choice, for example `defaults: [lora, _self_]`."
    return value_message(key, said) if key else said


def value_message(key: str, said: str) -> str:
    if said.endswith("is not Optional"):
        return f"{key}=null is not possible. Give {key} a value."
    if "is not a ListConfig" in said:
        return f"{key} must be a list. Write it in brackets: '{key}=[FIRST,SECOND]'."
    given = UNFIT.match(said)
    return f"{key}={given['value']} is not possible. It must be {WANTED[given['type']]}." if given is not None else f"{key}: {said}"


def unknown_key(key: str) -> str:
    """Why `key` is not a key, or not a key of this choice, and which one may be meant."""
    there = choices_with(key)
    if there:
        group = key.split(".")[0]
        return f"{key} is not a key of the chosen {group}, but of {group}={' or '.join(there)}. {ALL_KEYS}"
    if key.startswith("model.architecture."):
        field = key.removeprefix("model.architecture.")
        return f"{key} is not in this model's architecture. Add it with: 'model.architecture={{{field}: VALUE}}'."
    return f"{key} is not a key. {nearest_key(key)}"


def llamafactory_hint(key: str) -> str:
    """What a name of LLaMA-Factory is called here; empty for any other word. It may stand behind a group: optim.learning_rate."""
    from conf.llamafactory import SAME, row_of_name, row_of_needless  # only a mistake needs the table

    word = key.rsplit(".", 1)[-1]
    row, needless = row_of_name(word), row_of_needless(word)
    if needless is not None:
        return f"It is a name of LLaMA-Factory that needs no key here: {needless.why}. Remove it."
    if row is None or row.ours.rsplit(".", 1)[-1] == word:
        return ""
    form = f"{row.ours}={'CHOICE' if row.ours in GROUPS else 'VALUE'}"
    how = "" if row.values == SAME else f" ({row.values})"
    return f"It is LLaMA-Factory's name for {row.ours}. Write {form}{how}. docs/llamafactory.md translates all names."


def llamafactory_choice(group: str, name: str) -> str:
    """How a choice that has LLaMA-Factory's name is called here; empty where that table does not mention it."""
    from conf.llamafactory import NAMES

    said = [part for row in NAMES if row.ours == group for part in row.values.split("; ") if f"`{name}`" in part]
    return f"\nhint: of LLaMA-Factory's values for {group}, {said[0].removeprefix('a choice: ')}." if said else ""


def choices_with(key: str) -> list[str]:
    """The choices of the key's group whose type has it."""
    group, _, field = key.partition(".")
    return [name for name, node in subtypes().get(group, {}).items() if field in {there.name for there in fields(node)}]


def nearest_key(key: str) -> str:
    return llamafactory_hint(key) or did_you_mean(key, known_keys()) + ALL_KEYS


def did_you_mean(word: str, known: Sequence[str]) -> str:
    fields = [key for key in known if "." in key and key.rsplit(".", 1)[-1] == word]
    near = fields[:1] or difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"Did you mean {near[0]}? " if near else ""


def known_keys() -> list[str]:
    """Every dotted key of the schema, over all choices."""
    keys = ["name", "output", *GROUPS, "recipe"]
    for group in GROUPS:
        types = [PLAIN_GROUPS[group]] if group in PLAIN_GROUPS else list(subtypes()[group].values())
        keys += [f"{group}.{field.name}" for node in types for field in fields(node)]
    return list(dict.fromkeys(keys))


def first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
