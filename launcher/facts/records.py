"""The first records of a set, as the trainers will read them: enough to tell its layout, however large it is."""

import csv
import gzip
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from conf.data_layout import Layout, in_words, layout_of_record, no_layout
from conf.data_registry import DataError, Source
from conf.data_sets import ending_of
from conf.text_encoding import HEAD, other_encoding

LOOKED_AT = 1000  # records: the trainers look for a layout in their first chunk (SIZE in trainers/data/sources/chunks.py)
PREFIX = 2**20  # bytes of a .json file in which its first record is looked for
Record = dict[str, Any]


def layout_of_part(part: Source, strict: bool) -> Layout | None:
    """The layout of a file's records, as registered, or that of the first one that fits; None where that is not known before the trainers read it.

    Args:
        strict: whether the first record must have every column without which there is no sample.

    Raises:
        DataError: for records that fit no layout, or a first one that lacks a column of the registered one.
    """
    if part.file is None or ending_of(part.file) not in READERS or part.file.suffix == ".zst":
        return part.layout
    records = islice(READERS[ending_of(part.file)](part.file), LOOKED_AT)
    first = next(records, None)
    if first is None:
        return part.layout
    if part.layout is not None:
        if strict:
            refuse_missing_column(part, part.layout, first)
        return part.layout
    place, record = first
    found = layout_of_record(record) or next((layout for _, other in records if (layout := layout_of_record(other)) is not None), None)
    if found is None:
        raise DataError(no_layout(place, record))
    return found


def refuse_missing_column(part: Source, layout: Layout, first: tuple[str, Record]) -> None:
    place, record = first
    whole = layout.holds == "pairs" and not isinstance(record.get(str(layout.columns.chosen)), str)  # answers may then hold their question too
    for field in layout.required[1 if whole else 0 :]:
        column = getattr(layout.columns, field)
        if column not in record:
            raise DataError(
                f"{place}: there is no column {column}, and the entry {part.name} of the registry needs one (as {field}). "
                f"The record has: {', '.join(map(str, record)) or 'none'}. Fix `columns` of the entry, or the record."
            )


# One function per ending: each record that can be read, with its place in messages. What is broken is left to the trainers, which list all of it.


def lines_of(path: Path) -> Iterator[tuple[str, Record]]:
    with opened(path) as file:
        for number, line in enumerate(file, start=1):
            record = parsed(line)
            if isinstance(record, dict):
                yield f"{path}, line {number}", record


def list_of(path: Path) -> Iterator[tuple[str, Record]]:
    """The first record of a list; later ones would need the whole file to be parsed."""
    with opened(path) as file:
        beginning = file.read(PREFIX)
    text = beginning.decode("utf-8-sig", errors="ignore").lstrip()
    if text and text[0] != "[":
        refuse_no_list(path, text)
    try:
        record, _ = json.JSONDecoder().raw_decode(text[1:].lstrip())
    except (json.JSONDecodeError, RecursionError):
        return
    if isinstance(record, dict):
        yield f"{path}, record 1", record


def refuse_no_list(path: Path, text: str) -> None:
    try:
        value, end = json.JSONDecoder().raw_decode(text)
    except (json.JSONDecodeError, RecursionError):
        return
    lines = text[end:].lstrip().startswith("{")
    what = "one object per line. Name it .jsonl" if lines else f"{in_words(value)}, not a list of records. Put the records into one list"
    raise DataError(f"{path} holds {what}{'' if lines else ', or one on each line of a .jsonl file'}.")


def table_of(path: Path) -> Iterator[tuple[str, Record]]:
    csv.field_size_limit(sys.maxsize)  # as the trainers read it
    with opened(path) as file:
        reader = csv.DictReader((line.decode("utf-8-sig", errors="replace") for line in file), strict=True)
        try:
            for record in reader:
                yield f"{path}, line {reader.line_num}", {name: value for name, value in record.items() if name is not None}
        except csv.Error:
            return


def texts_of(path: Path) -> Iterator[tuple[str, Record]]:
    yield f"{path}, line 1", {"text": ""}


def groups_of(path: Path) -> Iterator[tuple[str, Record]]:
    import pyarrow  # type: ignore[import-untyped]  # it takes as long as the rest of a plan, so only these files pay for it
    import pyarrow.parquet  # type: ignore[import-untyped]

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(1):
                for record in batch.to_pylist():
                    yield f"{path}, record 1", record
                return
    except (pyarrow.ArrowException, OSError):
        return


READERS: dict[str, Callable[[Path], Iterator[tuple[str, Record]]]] = {
    ".jsonl": lines_of,
    ".json": list_of,
    ".csv": table_of,
    ".txt": texts_of,
    ".parquet": groups_of,
}


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """
    Raises:
        DataError: for a text in another encoding than UTF-8. Of a compressed one the trainers say so.
    """
    if path.suffix == ".gz":
        with gzip.open(path) as packed:
            yield packed  # type: ignore[misc]
        return
    with path.open("rb") as file:
        told = other_encoding(path, file.read(HEAD))
        if told is not None:
            raise DataError(told)
        file.seek(0)
        yield file


def parsed(text: bytes) -> object:
    """None where it cannot be read."""
    try:
        return json.loads(text.decode("utf-8-sig"))
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError):
        return None
