"""One record with its number, parsed where it is used."""

import json
from dataclasses import dataclass

from conf.strict_json import LongNumber, RepeatedKey, broken, loads


class RowError(ValueError):
    """What is wrong with one record; whoever reads many gathers them into one DataError."""


class BrokenJson(RowError):
    def __init__(self, column: int, reason: str) -> None:
        super().__init__(reason)
        self.column = column


@dataclass(frozen=True)
class Unreadable:
    """In the place of a record that its file does not hold whole."""

    reason: str


Row = tuple[int, object]  # a number and its record; bytes are JSON that the process which tokenises it is to parse


def place_within(error: RowError) -> str:
    """Where in its line a record is broken, to follow the number of the line."""
    return f", column {error.column}" if isinstance(error, BrokenJson) else ""


def parsed(record: object) -> object:
    """The record itself, or what its line holds.

    Raises:
        RowError: for a record that cannot be read; BrokenJson names the column.
    """
    if isinstance(record, Unreadable):
        raise RowError(record.reason)
    if not isinstance(record, bytes):
        return record
    try:
        return loads(record.decode())  # of bytes json.loads would guess UTF-16 and UTF-32 too, a line at a time
    except (RepeatedKey, LongNumber) as error:
        raise RowError(str(error)) from error
    except json.JSONDecodeError as error:
        raise BrokenJson(error.colno, f"broken JSON: {broken(error)}") from error
    except UnicodeDecodeError as error:
        raise BrokenJson(error.start + 1, f"byte {error.object[error.start]:#04x} is not UTF-8; save the file as UTF-8") from error
    except RecursionError as error:
        raise BrokenJson(1, "is nested too deeply") from error
