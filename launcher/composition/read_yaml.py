"""YAML that somebody wrote by hand: of a size that can be held, no key twice, and no number that is not what it looks like."""

import re
from collections.abc import Iterator
from typing import Any

import yaml
from yaml import MappingNode, Node, ScalarNode, SequenceNode
from yaml.constructor import ConstructorError

from launcher.errors import ConfigError
from launcher.words import on_one_line

MOST = 1_000_000  # characters and entries; the longest file of a run on record has some 20,000
# YAML 1.1 counts these in sixties, and in eights: 1:30 is 90, and 010 is 8.
ODD_NUMBER = re.compile(r"[-+]?(?:[0-9][0-9_]*(?::[0-9]+)+(?:\.[0-9_]*)?|0[0-7_]+)")
STANDARD = "tag:yaml.org,2002:"
NUMBERS = (f"{STANDARD}int", f"{STANDARD}float")
PLAIN_TAGS = {f"{STANDARD}{name}" for name in ("bool", "float", "int", "map", "null", "seq", "str", "timestamp", "value")}
MERGE = f"{STANDARD}merge"  # `<<`, which may stand twice: both tables are merged


class Loader(yaml.SafeLoader):
    """As SafeLoader, which has errors of Python alone for a value that is none of its tag, such as `!!bool maybe`."""

    def construct_object(self, node: Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ArithmeticError, AttributeError, LookupError) as error:
            raise ConstructorError(None, None, f"{node.value!r} is no {node.tag.rpartition(':')[2]}", node.start_mark) from error


def values_of(text: str) -> Any:
    """What the text holds, as yaml.safe_load reads it.

    Raises:
        yaml.YAMLError, RecursionError: where it is no YAML, or a value is none of its tag.
        ValueError: for a number or a date that cannot be read.
    """
    return yaml.load(text, Loader=Loader)


def nodes_of(text: str, place: str) -> Node | None:
    """What the text holds, its aliases not filled in; `place` names it in messages.

    Raises:
        ConfigError: where it is longer than MOST once its aliases are filled in, or has no end then, and for half a character.
        yaml.YAMLError, RecursionError: where it is no YAML.
    """
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    refuse_half_characters(root, place)
    if root is not None and length(root, {}, place) > MOST:
        raise ConfigError(
            f"{place} is longer than {MOST:,} characters once its aliases (`*name`) are filled in. Write out what they stand for, or leave it out."
        )
    return root


def length(node: Node, known: dict[int, int | None], place: str) -> int:
    """Characters and entries, each alias as long as what it stands for; `known`: of the nodes that were met, None while one is being counted."""
    if id(node) in known:
        found = known[id(node)]
        if found is None:
            raise ConfigError(f"{place}, line {node.start_mark.line + 1}: an alias (`*name`) stands inside of what it means. Write out the value.")
        return found
    known[id(node)] = None
    total = 1 + (len(node.value) if isinstance(node, ScalarNode) else sum(length(part, known, place) for part in parts(node)))
    known[id(node)] = total
    return total


def parts(node: Node) -> list[Node]:
    if isinstance(node, MappingNode):
        return [part for pair in node.value for part in pair]
    return list(node.value) if isinstance(node, SequenceNode) else []


def refuse_half_characters(root: Node | None, place: str) -> None:
    """JSON writes some characters in two halves, such as \\ud83d\\ude00. Raises ConfigError for one without the other, which no file can hold."""
    for _, node in named_nodes(root):
        texts = [node.value] if isinstance(node, ScalarNode) else [part.value for part in parts(node) if isinstance(part, ScalarNode)]
        try:
            "".join(map(str, texts)).encode("utf-16", "surrogatepass").decode("utf-16")
        except UnicodeDecodeError as error:
            raise ConfigError(f"{place}, line {node.start_mark.line + 1}: half a character stands here (\\ud800 to \\udfff). Remove it.") from error


def refuse_what_is_not_read(root: Node | None, place: str) -> None:
    """Of what YAML can hold a file of a run has keys and plain values alone.

    Raises:
        ConfigError: naming the line of another tag, of a merge or of a key that is no word.
    """
    for _, node in named_nodes(root):
        where = f"{place}, line {node.start_mark.line + 1}"
        if node.tag not in PLAIN_TAGS:
            raise ConfigError(f"{where}: the tag {on_one_line(node.tag.replace(STANDARD, '!!'))} is not read here. Write the value without it.")
        for key, _ in node.value if isinstance(node, MappingNode) else ():
            if key.tag == MERGE:
                raise ConfigError(f"{where}: `<<` is not read here. Write out the keys that it stands for.")
            if not isinstance(key, ScalarNode):
                raise ConfigError(f"{where}: a list or a table stands where a key must be. Write one word.")


def refuse_repeated_keys(root: Node | None, place: str) -> None:
    """Of a key that stands twice in one table a reader takes the last value, and says nothing.

    Raises:
        ConfigError: naming the line, and the key with those around it.
    """
    for around, node in named_nodes(root):
        seen: set[str] = set()
        for key, _ in node.value if isinstance(node, MappingNode) else ():
            name = str(key.value)
            if name in seen and key.tag != MERGE:
                raise ConfigError(f"{place}, line {key.start_mark.line + 1}: {below(around, name)} stands twice. Keep one of the two.")
            seen.add(name)


def refuse_odd_numbers(root: Node | None, place: str) -> None:
    """Raises ConfigError for a number that YAML reads as another one than stands there, with what to write."""
    for name, node in named_nodes(root):
        said = odd_number(node)
        if said is not None:
            raise ConfigError(f"{place}, line {node.start_mark.line + 1}: {name}: {said}")


def odd_number(node: Node | None) -> str | None:
    """What to write in the place of a number that YAML reads as another one; None for every other value.

    Raises:
        ValueError: for a number of more digits than Python writes.
    """
    if not isinstance(node, ScalarNode) or node.tag not in NUMBERS or not ODD_NUMBER.fullmatch(node.value):
        return None
    read = yaml.SafeLoader("").construct_object(node)
    if ":" not in node.value and int(node.value.replace("_", "")) == read:  # 007
        return None
    return f"{node.value} is {read} to every reader of YAML 1.1. Write {read}, or put it in quotes where it is a text."


def named_nodes(root: Node | None) -> Iterator[tuple[str, Node]]:
    """Every node once, with its key and those around it, such as `datasets[0].path`."""
    waiting, met = [] if root is None else [("", root)], set()
    while waiting:
        name, node = waiting.pop()
        if id(node) in met:
            continue
        met.add(id(node))
        yield name, node
        if isinstance(node, MappingNode):
            waiting += [(below(name, str(key.value)), value) for key, value in reversed(node.value)]
        elif isinstance(node, SequenceNode):
            waiting += [(f"{name}[{index}]", entry) for index, entry in reversed([*enumerate(node.value)])]


def below(around: str, name: str) -> str:
    return f"{around}.{on_one_line(name)}" if around else on_one_line(name)
