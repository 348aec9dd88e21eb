"""How a table that has one row a choice is asked: a choice without a row is an error that says where the row belongs."""

from collections.abc import Mapping
from typing import TypeVar

Row = TypeVar("Row")


class MissingRow(LookupError):
    """A choice that can be composed, but that a table does not know yet."""


def row_of(table: Mapping[str, Row], group: str, name: str, home: str) -> Row:
    """The row of a choice.

    Raises:
        MissingRow: naming the choice and `home`, the file and the table that lack it.
    """
    if name not in table:
        raise MissingRow(f"{group}={name} has no row in {home}. Add one there; CONTRIBUTING.md says what else a new {group} needs.")
    return table[name]
