"""Every key of a run as a row: its type, values, default and meaning, read from schema.py and from the YAML files beside it."""

import ast
import re
import tokenize
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache
from io import StringIO
from pathlib import Path

from conf import schema
from conf.choices import type_of
from conf.groups import CONF, default_choices
from conf.schema import PLAIN_GROUPS, Composed

UNITS = (
    "answers",
    "blocks",
    "bytes",
    "checkpoints",
    "evaluations",
    "MiB",
    "processes",
    "ranks",
    "samples",
    "seconds",
    "share",
    "steps",
    "TFLOP/s",
    "tokens",
)
TYPES = {
    "str": "text",
    "int": "whole number",
    "float": "number",
    "bool": "true or false",
    "Size": "size",
    "Layers": "true, false, auto or a number of layers",
    "list[str]": "list of texts",
    "list[float]": "list of numbers",
}
TABLE = "dict[str, Any]"
ALTERNATIVES = re.compile(r"\S+( \| \S+)+")
YAML_LINE = re.compile(r"^(?P<key>\w+):(?P<value>[^#\n]*)(# (?P<comment>.*))?$", re.MULTILINE)


@dataclass(frozen=True)
class KeyRow:
    """One key as some choices of its group have it; a key that means something else in another choice has a row of its own."""

    key: str
    type: str
    unit: str  # empty: it has none
    values: tuple[str, ...]  # the only ones; empty: more than can be listed
    help: str
    defaults: tuple[tuple[str, str], ...]  # choice and value, as its YAML file writes it
    notes: tuple[tuple[str, str], ...]  # choice and what its YAML file says beyond `help`
    llamafactory: tuple[str, ...]  # LLaMA-Factory's names of it

    @property
    def choices(self) -> tuple[str, ...]:
        return tuple(choice for choice, _ in self.defaults)


@dataclass(frozen=True)
class Comment:
    """What stands beside a field: `values or unit: help`, or only help."""

    text: str

    @property
    def head(self) -> str:
        head, found, _ = self.text.partition(": ")
        return head if found and (head in UNITS or ALTERNATIVES.fullmatch(head)) else ""

    @property
    def unit(self) -> str:
        return self.head if self.head in UNITS else ""

    @property
    def values(self) -> tuple[str, ...]:
        return tuple(self.head.split(" | ")) if ALTERNATIVES.fullmatch(self.head) else ()

    @property
    def help(self) -> str:
        return self.text.removeprefix(f"{self.head}: ") if self.head else self.text


@dataclass(frozen=True)
class Field:
    type: str
    comment: Comment


def key_rows(group: str, llamafactory: Mapping[str, Sequence[str]]) -> list[KeyRow]:
    """The rows of one group, in the order of its types. `llamafactory`: their names by our key."""
    found: dict[tuple[str, Field], list[str]] = {}
    for choice, type_ in types_of(group):
        for field in fields(type_):
            if group not in PLAIN_GROUPS and field.name == "name":  # it belongs to the choice and cannot be set
                continue
            found.setdefault((field.name, field_of(type_, field.name)), []).append(choice)
    return [row(group, name, field, choices, llamafactory) for (name, field), choices in found.items()]


def types_of(group: str) -> list[tuple[str, type]]:
    """Every choice of a group with its type; the default choice comes first."""
    first = default_choices()[group]
    names = sorted((path.stem for path in (CONF / group).glob("*.yaml")), key=lambda name: (name != first, name))
    return [(name, type_of(group, name)) for name in names]


def row(group: str, name: str, field: Field, choices: Sequence[str], llamafactory: Mapping[str, Sequence[str]]) -> KeyRow:
    key, lines = f"{group}.{name}", {choice: yaml_lines(group, choice)[name] for choice in choices}
    notes = tuple((choice, comment) for choice, (_, comment) in lines.items() if comment not in field.comment.text)
    defaults = tuple((choice, value) for choice, (value, _) in lines.items())
    comment = field.comment
    return KeyRow(key, field.type, comment.unit, comment.values, comment.help, defaults, notes, tuple(llamafactory.get(key, ())))


def group_help(group: str) -> str:
    return field_of(Composed, group).comment.help


def choice_help(group: str, choice: str) -> str:
    """The first line of a choice's file; empty where it has no comment."""
    first = (CONF / group / f"{choice}.yaml").read_text(encoding="utf-8").splitlines()[0]
    return first.removeprefix("# ") if first.startswith("# ") else ""


@cache
def yaml_lines(group: str, choice: str) -> dict[str, tuple[str, str]]:
    """Value and comment of every key in the file of a choice, as written; a value of several lines is empty."""
    text = (CONF / group / f"{choice}.yaml").read_text(encoding="utf-8")
    return {found["key"]: (found["value"].strip().strip("'\""), found["comment"] or "") for found in YAML_LINE.finditer(text)}


def field_of(type_: type, name: str) -> Field:
    """A field as the class that defines it writes it."""
    return next(found for base in type_.__mro__ if (found := schema_fields().get((base.__name__, name))) is not None)


@cache
def schema_fields() -> dict[tuple[str, str], Field]:
    """Every field of schema.py by class and name."""
    text = Path(schema.__file__).read_text(encoding="utf-8")
    comments = {token.start[0]: token for token in tokenize.generate_tokens(StringIO(text).readline) if token.type == tokenize.COMMENT}
    return {
        (node.name, str(target)): Field(type_name(ast.unparse(statement.annotation)), Comment(" ".join(beside(comments, statement.lineno))))
        for node in ast.parse(text).body
        if isinstance(node, ast.ClassDef)
        for statement in node.body
        if isinstance(statement, ast.AnnAssign)
        for target in [ast.unparse(statement.target)]
    }


def beside(comments: Mapping[int, tokenize.TokenInfo], line: int) -> Iterator[str]:
    """The comment lines directly above a line, then the comment at its end."""
    first = line
    while first - 1 in comments and comments[first - 1].line.strip().startswith("#"):
        first -= 1
    for number in range(first, line + 1):
        if number in comments:
            yield comments[number].string.removeprefix("#").strip()


def type_name(annotation: str) -> str:
    bare = annotation.removesuffix(" | None")
    return TYPES.get(bare, "table" if bare == TABLE else bare) + (", or null" if bare != annotation else "")
