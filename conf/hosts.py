"""The machines of cluster=hosts: lists of them as Slurm writes such lists, one by one."""

import ipaddress
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import TypeVar

from conf.schema import Composed, Hosts

MOST = 4096  # of one list: a slip of the pen is refused before a million names are made
RANGE = re.compile(r"\[([^\[\]]*)\]")
NUMBERS = re.compile(r"([0-9]{1,9})(?:-([0-9]{1,9}))?")
USER = r"(?:[A-Za-z_][\w.-]*@)?"
LABEL = r"[A-Za-z0-9_](?:[\w-]*[A-Za-z0-9_])?"
NAME = re.compile(rf"{USER}(?!.{{254}}){LABEL}(?:\.{LABEL})*", re.ASCII)
DOTTED = re.compile(r"[0-9]+(?:\.[0-9]+)+")  # looks like an address of version 4
IPV6 = re.compile(rf"({USER})(\[)?([0-9A-Fa-f]*:[0-9A-Fa-f:.]*:[0-9A-Fa-f.]*(?:%[\w.-]+)?)(?(2)\])")
EXAMPLE = "cluster.hosts='[\"node[01-03,07]\"]'"

Described = TypeVar("Described", bound=Composed)


def expanded(entries: Sequence[str]) -> tuple[str, ...]:
    """Every machine once, in the order of the list: `node[01-03,07]` is node01, node02, node03 and node07.

    Raises:
        ValueError: for an entry that names no machine, for one that stands twice, and for more than MOST.
    """
    found: list[str] = []
    for entry in entries:
        for text in parts(str(entry)):
            found += machines(text)
            if len(found) > MOST:
                raise ValueError(f"cluster.hosts names more than {MOST} machines, the last by {text}. Name those of this run alone.")
    seen: set[str] = set()
    for host in map(without_user, found):
        if one_name(host) in seen:
            raise ValueError(f"cluster.hosts names {host} twice, and each machine runs one share of the ranks. Name it once.")
        seen.add(one_name(host))
    return tuple(found)


def one_name(host: str) -> str:
    """The same for every way of writing a name or an address."""
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return host.lower()


def without_user(host: str) -> str:
    return host.rpartition("@")[2]


def parts(entry: str) -> list[str]:
    """What commas outside of brackets separate."""
    return [text.strip() for text in re.split(r",(?![^\[]*\])", entry)]


def machines(text: str) -> list[str]:
    address = IPV6.fullmatch(text)
    if address is not None and is_address(address[3]):
        return [f"{address[1]}{address[3]}"]
    found = list(islice(names(text), MOST + 1))
    for name in found:
        if NAME.fullmatch(name) is None or (DOTTED.fullmatch(without_user(name)) and not is_address(without_user(name))):
            raise ValueError(
                f"cluster.hosts: {text!r} names no machine. Write a name, an address, user@name, or a list as Slurm has it, for example {EXAMPLE}."
            )
    return found


def is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def names(text: str) -> Iterator[str]:
    """The text with each of its brackets filled in turn."""
    bracket = RANGE.search(text)
    if bracket is None:
        yield text
        return
    for number in numbers(bracket[1], text):
        yield from names(f"{text[: bracket.start()]}{number}{text[bracket.end() :]}")


def numbers(inside: str, text: str) -> Iterator[str]:
    """Of `01-03,07`: 01, 02, 03 and 07, as wide as they are written."""
    for piece in inside.split(","):
        found = NUMBERS.fullmatch(piece.strip())
        first, last = (int(found[1]), int(found[2] or found[1])) if found else (1, 0)
        if found is None or last < first or last - first >= MOST:
            raise ValueError(f"cluster.hosts: [{inside}] in {text!r} is no list of numbers. Write it as in {EXAMPLE}.")
        yield from (f"{number:0{len(found[1])}}" for number in range(first, last + 1))


def with_nodes(run: Described) -> Described:
    """The run with one node for each of its machines; where none is named yet, as it is.

    Raises:
        ValueError: as expanded, and where cluster.nodes says another number.
    """
    cluster = run.cluster
    if not isinstance(cluster, Hosts):
        return run
    count = len(expanded(cluster.hosts))
    if count == 0:
        return run
    if cluster.nodes not in (0, count):
        raise ValueError(f"cluster.hosts names {count} machines, and cluster.nodes={cluster.nodes}. Leave cluster.nodes out, or set it to {count}.")
    return replace(run, cluster=replace(cluster, nodes=count))
