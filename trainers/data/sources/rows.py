"""One record with its number, parsed where it is used."""

import json

from trainers.data.sources.records import RowError


class BrokenJson(RowError):
    def __init__(self, column: int, reason: str) -> None:
        super().__init__(reason)
        self.column = column


Row = tuple[int, object]  # a number and its record; bytes are JSON that the process which tokenises it is to parse


def parsed(record: object) -> object:
    """The record itself, or what its line holds.

    Raises:
        BrokenJson: naming the column.
    """
    if not isinstance(record, bytes):
        return record
    try:
        return json.loads(record.decode())  # of bytes json.loads would guess UTF-16 and UTF-32 too, a line at a time
    except json.JSONDecodeError as error:
        raise BrokenJson(error.colno, f"broken JSON: {error.msg}") from error
    except UnicodeDecodeError as error:
        raise BrokenJson(error.start + 1, f"byte {error.object[error.start]:#04x} is not UTF-8; save the file as UTF-8") from error
    except RecursionError as error:
        raise BrokenJson(1, "is nested too deeply") from error
