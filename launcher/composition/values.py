"""Values that do not fit the type of their key: what the key accepts, in words."""

import re
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, ListConfig

from launcher.composition.names import field_type
from launcher.composition.spelling import line_for

ACCEPTED = {
    "str": "one text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "list[str]": "a list of texts",
    "list[float]": "a list of numbers",
    "dict[str, typing.Any]": "a table",
}
FOUND = re.compile(r"(Value|Cannot convert '\w+' to string:|While dereferencing interpolation '(?P<reference>[^']*)': Value) '(?P<value>.*?)'( |$)")
PIECE = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|[^,\[\]()'"]+""")  # of a value: what is in quotes, or stands between separators
NUMBER_OR_TRUTH = re.compile(r"true|false|[+-]?(nan|inf)|[+-]?[\d._]+(e[+-]?[\d_]+)?", re.IGNORECASE)
UNSET = re.compile(r"Environment variable '(?P<name>.*)' not found")
UNKNOWN = re.compile(r"Interpolation key '(?P<name>.*)' not found")


def type_of(key: str) -> str:
    """The annotation of a key without its null; of an entry of a list, such as data.sets[0], that of the entry."""
    listed, bracket, _ = key.partition("[")
    named = field_type(listed).removesuffix(" | None")
    return named.removeprefix("list[").removesuffix("]") if bracket else named


def accepted(key: str) -> str | None:
    """What the type of `key` holds; None for what has no type."""
    wanted = ACCEPTED.get(type_of(key))
    may_be_null = "[" not in key and field_type(key).endswith(" | None")
    return f"{wanted}, or null" if wanted is not None and may_be_null else wanted


def value_message(key: str, said: str, value: str | None = None) -> str:
    """Why `value` is not one of `key`, where OmegaConf `said` it in its own words."""
    if said.endswith("is not Optional"):
        return f"{key}=null is not possible. Give {key} a value."
    if said.startswith("Invalid type assigned: NoneType") and "[" in key:
        return f"{key}=null is not possible. Each entry must be {accepted(key)}: write it, or leave it out."
    if "is not a ListConfig" in said:
        return f"{key} must be a list. Write: {line_for(key, 'FIRST,SECOND' if value is None else value)}"
    found, wanted = FOUND.match(said), accepted(key)
    shown = value if value is not None or found is None else found["value"]
    return f"{key}: {said}" if wanted is None or shown is None else f"{key}={shown} is not possible. It must be {wanted}."


def reference_message(key: str, said: str) -> str:
    """Why a reference such as ${name} in the value of `key` gives no value for it."""
    found, unknown, wanted = FOUND.match(said), UNKNOWN.match(said), accepted(key)
    if unknown is not None:
        return f"{key} refers to ${{{unknown['name']}}}, which is not a key. Write the value itself, or a whole key such as ${{training.seed}}."
    unset = UNSET.search(said)
    if unset is not None:
        return f"{key} refers to the environment variable {unset['name']}, which is not set. Set it, or write the value itself."
    if found is not None and found["reference"] and wanted is not None:
        return f"{key}={found['reference']} is not possible, because it stands for {found['value']}. It must be {wanted}."
    return f"{key} cannot be resolved: {said.removesuffix('.')}. Write the value itself."


def odd_value(key: str, value: Any) -> str | None:
    """The message for a value that the type of `key` would change in silence: OmegaConf takes every number but 0 for true."""
    if type_of(key) == "bool" and is_number(value) and value not in (0, 1):
        return f"{key}={value} is not possible. It must be {accepted(key)}."
    return None


def odd_in_file(key: str, value: Any) -> str | None:
    """As odd_value, and for what YAML has read as a number or a truth where a text belongs: 1.10 is 1.1 by then, and yes is true."""
    if type_of(key) == "str" and isinstance(value, (bool, float)):
        return f"{key} is a text, and YAML reads what stands there as {str(value).lower()}. Put it in quotes."
    if type_of(key) == "list[str]" and isinstance(value, (list, ListConfig)):
        return next((odd_in_file(f"{key}[{index}]", entry) for index, entry in enumerate(value) if isinstance(entry, (bool, float))), None)
    return odd_value(key, value)


def is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def as_written(override: Override) -> str:
    """The same override, with quotes around each text that Hydra's grammar would read as a number or a truth: 1.10 is not 1.1, and true not True.

    The texts of a list and of a sweep are quoted one by one; the bounds of a range and of an interval stay numbers.
    """
    key, equals, written = (override.input_line or "").partition("=")
    is_text = type_of(key) in ("str", "list[str]") and not re.match(r"\s*(range|interval)\(", written)
    return key + equals + (PIECE.sub(lambda piece: quoted_if_changed(piece[0]), written) if is_text else written)


def quoted_if_changed(piece: str) -> str:
    """A piece of a value, in quotes where it would become a number or a truth that is written differently."""
    bare = piece.strip()
    if not NUMBER_OR_TRUTH.fullmatch(bare):
        return piece
    value = OverridesParser.create().parse_override(f"key={bare}").value()
    return piece.replace(bare, f"'{bare}'") if isinstance(value, (bool, int, float)) and str(value) != bare else piece


def odd_reference(key: str, given: Any) -> str | None:
    """The message for a list or a table that is a reference to something else, whose letters OmegaConf would take one by one."""
    kind = type_of(key)
    if given is None or not (kind.startswith(("list", "dict"))) or isinstance(given, (ListConfig if kind.startswith("list") else DictConfig)):
        return None
    return f"{key} refers to {given}. It must be {ACCEPTED[kind]}."
