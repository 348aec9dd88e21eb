"""How a table that has one row a choice is asked: a choice without a row is an error that says where the row belongs."""

from collections.abc import Mapping
from typing import TypeVar

Row = TypeVar("Row")


class MissingRow(LookupError):
    """A choice that can be composed, but that a table does not know yet."""


def row_of(rows: Mapping[str, Row], group: str, name: str, home: str) -> Row:
    """The row of `group=name`; `home` is the table as its file and name.

    Raises:
        MissingRow: naming the choice and where its row belongs.
    """
    if name not in rows:
        raise MissingRow(f"{group}={name} has no row in {home}. Add its row there (CONTRIBUTING.md says what it holds), or use {', '.join(rows)}.")
    return rows[name]
