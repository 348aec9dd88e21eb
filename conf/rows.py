"""Looks a choice up in the table that holds a row for it."""

from collections.abc import Mapping
from typing import TypeVar

Row = TypeVar("Row")


class MissingRow(KeyError):
    """A choice that its table does not know."""

    def __str__(self) -> str:
        return str(self.args[0])  # KeyError itself would quote it


def row_of(rows: Mapping[str, Row], group: str, name: str, home: str) -> Row:
    """The row of `group=name`; `home` is the table as its file and name.

    Raises:
        MissingRow: naming the choice and where its row belongs.
    """
    if name not in rows:
        raise MissingRow(f"{group}={name} has no row in {home}. Add its row there (CONTRIBUTING.md says what it holds), or use {', '.join(rows)}.")
    return rows[name]
