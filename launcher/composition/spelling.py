"""What stands on the command line and is not key=value, and the line that works in its place."""

import re
import shlex
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from conf.groups import built_in_choices
from conf.llamafactory import NAMES, SAME, Name, row_of_name, row_of_needless
from conf.schema import GROUPS
from launcher.composition.names import field_type, known_keys, nearest_choices, nearest_key, preset_of
from launcher.words import on_one_line

FILE = re.compile(r"\S+\.(ya?ml|json)")
PLAIN = re.compile(r"null|true|false|[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)
OPEN_QUOTE = "a quote is not closed"
QUOTES = "it has a character that needs quotes within the shell's own"
EXTRA = "it has a sign too many"
FULL_WIDTH = str.maketrans(dict(zip("＝，：；（）［］｛｝“”‘’、", "=,:;()[]{}\"\"'',", strict=True)))  # what a Chinese keyboard writes
MOST_DIGITS = 300  # a float holds some 308
ENDLESS_NUMBER = re.compile(rf"\d{{{MOST_DIGITS + 1}}}")
PAGE = "docs/guides/llamafactory.md translates all names."


def readable(text: str) -> bool:
    """Whether Hydra's grammar reads one value in it."""
    try:
        return not OverridesParser.create().parse_override(text).is_sweep_override()
    except HydraException:
        return False


def plainly(text: str) -> str:
    """The same override with the quotes that Hydra's grammar needs around letters beyond ASCII."""
    key, equals, value = text.partition("=")
    if not equals or key in GROUPS or value.isascii() or set("'\"") & set(value) or is_wide(value) or parses(text):
        return text
    if value.startswith("[") and not value.endswith("]"):
        return text
    form = listed(value) if value.startswith("[") else ",".join(quoted(part) for part in value.split(","))
    return f"{key}={form}" if parses(f"{key}={form}") else text


def parses(text: str) -> bool:
    try:
        OverridesParser.create().parse_override(text)
    except HydraException:
        return False
    return True


def is_wide(text: str) -> bool:
    return text != text.translate(FULL_WIDTH)


def line_for(key: str, value: str) -> str:
    """key=value as a shell has to see it, in the form that Hydra's grammar reads; a list in brackets."""
    value = value.strip()
    if field_type(key).startswith("list") and not value.startswith("["):
        value = f"[{value}]"
    forms = [value, listed(value), quoted(value)]
    return shlex.quote(next((f"{key}={form}" for form in forms if readable(f"{key}={form}")), f"{key}={quoted(value)}"))


def listed(value: str) -> str:
    """A list whose texts are quoted one by one; what is no list stays."""
    if not value.startswith("["):
        return value
    entries = [entry.strip() for entry in value.removeprefix("[").removesuffix("]").split(",")]
    return f"[{','.join(entry if PLAIN.fullmatch(entry) else quoted(entry) for entry in entries if entry)}]"


def quoted(text: str) -> str:
    bare = text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" else text
    escaped = bare.replace('"', '\\"')
    return f'"{escaped}"'


def too_many_digits(overrides: Sequence[str]) -> str | None:
    """The message for a number that Python refuses to read, or no float holds; None where there is none."""
    for text in overrides:
        if ENDLESS_NUMBER.search(text):
            return f"{on_one_line(text[:60])}... holds a number of more than {MOST_DIGITS} digits, and no key takes one. Shorten it."
    return None


def in_pieces(overrides: Sequence[str]) -> str | None:
    """The message for spaces around `=`, for a space or a colon in its place; None where there is none of them."""
    for at, text in enumerate(overrides):
        key, rest = text, [*overrides[at + 1 : at + 3]]
        if text.endswith("=") and len(text) > 1 and rest and "=" not in rest[0] and is_key(text[:-1]):
            return spaced(f"{text} {rest[0]}", text[:-1], rest[0])
        named, _, value = text.partition("=")
        if value and is_key(named) and named not in (*GROUPS, "recipe"):
            torn = list(takewhile(is_loose, overrides[at + 1 :]))
            if torn:
                return f"`{' '.join([text, *torn])}` has spaces, at which a shell splits it. {instead(named, ' '.join([value, *torn]))}"
        if "=" in text or not is_key(key.removesuffix(":")):
            continue
        if rest[:1] == ["="] and len(rest) > 1:
            return spaced(f"{text} = {rest[1]}", key, rest[1])
        if rest and rest[0].startswith("=") and len(rest[0]) > 1:
            return spaced(f"{text} {rest[0]}", key, rest[0][1:])
        if rest and "=" not in rest[0]:
            return spaced(f"{text} {rest[0]}", key.removesuffix(":"), rest[0])
    return None


def is_loose(text: str) -> bool:
    """Whether a word is probably the rest of the value before it: a shell splits values that have spaces."""
    return "=" not in text and "＝" not in text and not is_key(text) and not text.startswith("-") and not FILE.fullmatch(text) and not is_run(text)


def is_run(text: str) -> bool:
    return text in ("last", "resume") or Path(text, "run.yaml").is_file()


def is_key(text: str) -> bool:
    return text in known_keys() or row_of_name(text) is not None or bool(re.fullmatch(r"\w+(\.\w+)+", text) and text.split(".")[0] in GROUPS)


def spaced(text: str, key: str, value: str) -> str:
    return f"`{text}` is not key=value. {instead(key, value)}"


def unreadable(text: str) -> str:
    """The message for one override that Hydra's grammar does not read."""
    key, equals, value = text.partition("=")
    if is_wide(text):
        meant = text.translate(FULL_WIDTH)
        sign = next(sign for sign in text if is_wide(sign))
        return f"{text!r} has the full-width sign {sign}, which is not {sign.translate(FULL_WIDTH)}. Write: {shlex.quote(plainly(meant))}"
    if value.startswith("~"):
        return tilde(key, value)
    if FILE.fullmatch(text) and not equals:
        return file_given(text)
    if is_run(text):
        return f"{text!r} is not key=value. To go on with a run, write: resume={'last' if text == 'resume' else text}"
    several = re.split(r"[\s;,]+(?=[\w.]+=)", text)
    if len(several) > 1 and all(readable(one) for one in several):
        return f"{text!r} holds several overrides. Write them apart: {' '.join(map(shlex.quote, several))}"
    if not equals:
        how = instead(key, "VALUE") if is_key(key) else "Write key=value or group=choice, such as optim.lr=1e-4 or regime=lora."
        return f"{text!r} is not key=value. {how}"
    name, why = key.strip(), reason(key, value)
    line = line_for(name, value.strip().strip("'\"") if why == OPEN_QUOTE else value.strip("=,; ") if why == EXTRA else value)
    if re.fullmatch(r"[\w./@-]+", name) and not re.search(r"\n|\$\{", value) and readable(shlex.split(line)[0]):
        return (
            f"{text!r} cannot be read, because {why}. Write: {own_line(name, value.strip()) if name in ('model', 'data') and why == QUOTES else line}"
        )
    return f"{text!r} cannot be read as key=value. If the value has special characters or letters outside ASCII, quote it twice: 'key=\"value\"'."


def reason(key: str, value: str) -> str:
    if key != key.strip() or value != value.strip():
        return "there are spaces around ="
    if value != value.strip("=,;"):
        return EXTRA
    if value.count("'") % 2 or value.count('"') % 2:
        return OPEN_QUOTE
    if value.count("[") != value.count("]"):
        return "a bracket is not closed"
    return QUOTES


def tilde(key: str, value: str) -> str:
    """A shell expands ~ at the beginning of a word only, and Hydra does not."""
    where = value.removeprefix("~")
    named = "model=local model.path" if key == "model" else key
    return f"{key}={value} is not possible, because ~ is not expanded there. Write: {named}={'$HOME' + where if where[:1] in ('', '/') else 'FOLDER'}"


def file_given(text: str) -> str:
    if text.endswith(".json"):
        own = "A file of a run is YAML (docs/guides/run_files.md)"
        return f"{text} is a file, not key=value. {own}; one of LLaMA-Factory is translated by: regimen import {text}"
    if not Path(text).exists():
        return f"{text} does not exist. Name a file of a run (docs/guides/run_files.md), or write key=value."
    return f"{text} is a file, which is read before the overrides. Write it without an option: {text}"


def with_dashes(option: str, value: str | None) -> str:
    """The message for `--key value`, `--key=value` and `--key`."""
    key = option.lstrip("-")
    given = option if value is None else f"{option} {value}"
    if option in ("-m", "--multirun"):
        return f"`{option}` is an option of `regimen train` and `regimen plan`. Give one value for each key here, or write: regimen train -m"
    if key in ("config", "config-name", "config-path", "config_file", "yaml") and value is not None:
        return (
            f"`{given}` is not an option. {file_given(value)}"
            if FILE.fullmatch(value)
            else f"`{given}` is not an option. Write: --config-dir {value}"
        )
    return f"`{given}` is not an option. {instead(key, value)}"


def instead(key: str, value: str | None) -> str:
    """The line that works, or what is known about a name that is not a key here."""
    name = key.replace("-", "_")
    near = nearest_key(name)
    shown = value if value is not None else "true" if near is not None and field_type(near) == "bool" else "VALUE"
    if name in (*GROUPS, "recipe"):
        return f"Write: {choice_line(name, shown)}"
    if name in known_keys():
        return f"Write: {line_for(name, shown)}"
    theirs = llamafactory(name, value, subject=name)
    if theirs:
        return theirs
    return f"Did you mean {line_for(near, shown)}?" if near else "Write key=value. `regimen train --cfg` shows every key."


def choice_line(group: str, name: str) -> str:
    """The choice as given where there is such a file here, else what is probably meant."""
    near = [] if name in built_in_choices(group) else nearest_choices(name, built_in_choices(group))
    return own_line(group, name) or " or ".join(f"{group}={choice}" for choice in near) or f"{group}={name}"


def own_line(group: str, name: str) -> str:
    """The line for a model or data that is named where a choice belongs; empty for everything else."""
    is_path = "/" in name or Path(name).exists()
    if group == "model" and (is_path or not nearest_choices(name, built_in_choices(group))):
        preset = preset_of(name)
        return f"model={preset}" if preset else f"model=local {line_for('model.path', name)}"
    if group == "data" and (is_path or not nearest_choices(name, built_in_choices(group))):
        return f"data=files {line_for('data.sets', name)}"
    return ""


def llamafactory(key: str, value: str | None, subject: str = "It") -> str:
    """What a name of LLaMA-Factory is here, with the line that works where the value translates as it stands; empty for other names."""
    name = key.rsplit(".", 1)[-1].replace("-", "_")
    row, needless = row_of_name(name), row_of_needless(name)
    if needless is not None:
        return f"{subject} is a name of LLaMA-Factory that needs no key here: {needless.why}. Remove it."
    if row is None or row.ours == name or ("." in row.ours and row.ours.rsplit(".", 1)[-1] == name):
        return ""  # the same word here: what is wrong is the group
    said = f"{subject} is LLaMA-Factory's name for {row.ours}."
    if value is not None and translates(row, value):
        return f"{said} Write: {choice_for(row)}{line_for(row.ours, value)}"
    how = "" if row.values == SAME else f" ({row.values})"
    return f"{said} Write {row.ours}={'CHOICE' if row.ours in GROUPS else 'VALUE'}{how}. {PAGE}"


def choice_for(row: Name) -> str:
    """What has to be chosen for the key to be there, as the table says it, and for data.sets to be read."""
    named = re.search(r"with `(\w+=\w+)`", row.values)
    return f"{named[1]} " if named else "data=files " if row.ours == "data.sets" else ""


def llamafactory_choice(group: str, name: str) -> str:
    """How a choice that has LLaMA-Factory's name is called here; empty where that table does not mention it."""
    said = [part for row in NAMES if row.ours == group for part in row.values.split("; ") if f"`{name}`" in part]
    return f"\nhint: of LLaMA-Factory's values for {group}, {said[0].removeprefix('a choice: ')}." if said else ""


def translates(row: Name, value: str) -> bool:
    """Whether the value means the same here, as far as the table tells."""
    if row.ours in GROUPS:
        return value in built_in_choices(row.ours)
    number = field_type(row.ours).split(" ")[0] in ("int", "float") and PLAIN.fullmatch(value) is not None and not value.startswith("-")
    return "opposite" not in row.values and (number or row.values.startswith((SAME, "a list", "one folder", "with `model=local`", "the folder")))
