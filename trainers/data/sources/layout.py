"""The layout of records that no registry describes."""

from collections.abc import Sequence
from pathlib import Path

from conf.data_layout import Layout, layout_of_record, no_layout
from conf.data_sets import data_ending
from trainers.data.sources.records import Records
from trainers.data.sources.rows import Row, RowError, parsed, place_within
from trainers.errors import DataError

REMEDIES = {".csv": "Give each line as many values as the first line has names.", ".txt": "Save it as UTF-8."}  # by ending; others hold JSON


def guessed_layout(records: Records, first: Sequence[Row]) -> Layout:
    """The layout that fits the columns of the first good record; the others must fit it too.

    Raises:
        DataError: when none can be read, or none fits a layout.
    """
    if not first:
        raise DataError(f"{records.origin} holds no records. Give a file with at least one.")
    readable = [(number, record) for number, record in map(readable_row, first) if record is not None]
    if not readable:
        number, record = first[0]
        remedy = REMEDIES.get(data_ending(Path(records.origin)) or "", "Give a file whose records are JSON objects, each whole.")
        raise DataError(f"{records.place(number)}{broken(record)}. No record of this file can be read. {remedy}")
    layouts = (layout_of_record(record) for _, record in readable if isinstance(record, dict))
    layout = next((layout for layout in layouts if layout is not None), None)
    if layout is None:
        number, record = readable[0]
        raise DataError(no_layout(records.place(number), record if isinstance(record, dict) else {}))
    return layout


def readable_row(row: Row) -> Row:
    """The row with its record parsed; None where it cannot be."""
    try:
        return row[0], parsed(row[1])
    except RowError:
        return row[0], None


def broken(record: object) -> str:
    try:
        parsed(record)
    except RowError as error:
        return f"{place_within(error)}: {error}"
    return ": the record is null"
