"""Rows that cannot be used: where each lies, what is wrong with it, and whether the run may go on without it."""

from collections.abc import Sequence
from dataclasses import dataclass

from conf.schema import Data
from trainers.data.sources.records import SHOWN
from trainers.errors import DataError


@dataclass(frozen=True)
class Problem:
    set: int  # position in data.sets and data.evaluation_sets
    origin: str  # file or hub id
    unit: str  # what `number` counts: record or line
    number: int
    column: int | None  # where the JSON of a line is broken
    reason: str

    def __str__(self) -> str:
        column = "" if self.column is None else f", column {self.column}"
        return f"{self.origin}, {self.unit} {self.number}{column}: {self.reason}"


def problem_lines(problems: Sequence[Problem]) -> list[str]:
    """The first ones in full, and how many follow."""
    more = [f"and {len(problems) - SHOWN:,} more"] if len(problems) > SHOWN else []
    return [*map(str, problems[:SHOWN]), *more]


def refuse_problems(problems: Sequence[Problem], read: int, data: Data, listed: bool = True) -> None:
    """Nothing is dropped silently: one error lists what is wrong in all sets, unless a report has listed it.

    Raises:
        DataError: for any problem where data.on_bad=fail; for too many of them where it is drop.
    """
    if not problems:
        return
    lines = ":" + "".join(f"\n  {line}" for line in problem_lines(problems)) + "\n" if listed else ". "
    if data.on_bad == "fail":
        remedy = "Fix or remove them, or leave them out with data.on_bad=drop."
        raise DataError(f"{len(problems):,} of {read:,} rows cannot be used{lines}{remedy}")
    if len(problems) > data.bad_share * read:
        remedy = "Fix or remove them, or raise data.bad_share."
        raise DataError(f"{len(problems):,} of {read:,} rows cannot be used, more than data.bad_share={data.bad_share}{lines}{remedy}")


def refuse_too_many(dropped: int, read: int, data: Data) -> None:
    """What data.on_bad and data.on_long drop together has one limit.

    Raises:
        DataError: above it.
    """
    if dropped > data.bad_share * read:
        raise DataError(
            f"{dropped:,} of {read:,} rows would be dropped by data.on_bad={data.on_bad} and data.on_long={data.on_long}, "
            f"more than data.bad_share={data.bad_share}. Raise data.cutoff or data.bad_share, or set data.on_long=truncate."
        )
