"""The one reader of each format: the records of a file with their numbers, one after the other.

Formats with a record on each line or in row groups are read as they are used; a `.json` file is read whole.
"""

import csv
import io
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import pyarrow
import pyarrow.parquet

from conf.data_layout import in_words
from conf.data_sets import is_compressed
from conf.strict_json import LongNumber, RepeatedKey, broken, loads, loads_marked, repeated_key
from conf.text_encoding import HEAD, other_encoding
from trainers.data.sources.arrow import without_nulls
from trainers.data.sources.rows import Row, Unreadable
from trainers.errors import DataError

BOM = b"\xef\xbb\xbf"
BATCH = 1000  # records of a Parquet file in memory


@dataclass(frozen=True)
class Format:
    unit: str  # what a number counts: record or line
    rows: Callable[[Path], Iterator[Row]]


def json_rows(path: Path) -> Iterator[Row]:
    value = json_value(path)
    if not isinstance(value, list):
        raise DataError(
            f"{path} holds {in_words(value)}, not a list of records. Put the records into one list, or one on each line of a .jsonl file."
        )
    return enumerate(map(unless_repeated, value), start=1)


def json_value(path: Path) -> object:
    content = read_text(path)
    try:
        return loads(content)
    except RepeatedKey:
        return loads_marked(content)
    except LongNumber as error:
        raise DataError(f"{path}: {error}. Write it as a text.") from error
    except json.JSONDecodeError as error:
        hint = "If it holds one object per line, name it .jsonl." if error.msg == "Extra data" else "Fix the file there."
        raise DataError(f"{path}, line {error.lineno}, column {error.colno}: broken JSON: {broken(error)}. {hint}") from error
    except RecursionError as error:
        raise DataError(f"{path}: its JSON is nested too deeply to be read. Give a list of flat records.") from error


def unless_repeated(record: object) -> object:
    key = repeated_key(record)
    return record if key is None else Unreadable(str(RepeatedKey(key)))


def json_lines(path: Path) -> Iterator[Row]:
    """Lines as bytes, for the processes that tokenise to parse."""
    return ((number, line) for number, line in lines_of(path) if line.strip())


def csv_rows(path: Path) -> Iterator[Row]:
    """Every value as text, by the names in the first line; a number is a record's last line."""
    csv.field_size_limit(sys.maxsize)  # the default of 131,072 characters is less than a long conversation
    reader = csv.DictReader(decoded_lines(path), strict=True)
    try:
        refuse_repeated_names(path, reader.fieldnames or [])
        for record in reader:
            uneven = None in record or None in record.values()
            problem = f"has {'more' if None in record else 'fewer'} values than the first line has names; quote values that hold commas or quotes"
            yield reader.line_num, Unreadable(problem) if uneven else record
    except csv.Error as error:
        begin = reader.line_num + 1  # of the broken record; the error may be at the end of the file
        raise DataError(f"{path}, line {begin}: broken CSV: {error}. Quote values that hold commas, quotes or new lines.") from error


def decoded_lines(path: Path) -> Iterator[str]:
    """With new lines of every system as \\n, as values may hold them."""
    for number, line in lines_of(path):
        try:
            yield from io.StringIO(line.decode().replace("\r", "\n") + "\n")
        except UnicodeDecodeError as error:
            raise DataError(f"{path}, line {number}: byte {error.start} of it is not UTF-8. Save the file as UTF-8.") from error


def text_lines(path: Path) -> Iterator[Row]:
    """Each line that is not blank is one document."""
    for number, line in lines_of(path):
        if line.strip():
            try:
                yield number, {"text": line.decode()}
            except UnicodeDecodeError as error:
                yield number, Unreadable(f"byte {error.start} of it is not UTF-8; save the file as UTF-8")


def parquet_rows(path: Path) -> Iterator[Row]:
    number = 0
    try:
        with parquet_file(path) as file:
            refuse_repeated_names(path, file.schema_arrow.names)
            for batch in file.iter_batches(BATCH):
                for record in batch.to_pylist():
                    number += 1
                    yield number, without_nulls(record)
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as Parquet: {str(error).rstrip('.')}. Write the file again.") from error


@contextmanager
def parquet_file(path: Path) -> Iterator[pyarrow.parquet.ParquetFile]:
    """Parquet is read from its end, so a compressed file is held in memory whole."""
    with opened_bytes(path) as file, pyarrow.parquet.ParquetFile(io.BytesIO(file.read()) if is_compressed(path) else path) as parquet:
        yield parquet


def refuse_repeated_names(path: Path, names: Sequence[str]) -> None:
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise DataError(f"{path} has more than one column of the name {', '.join(map(repr, repeated))}. Give each column a name of its own.")


def lines_of(path: Path) -> Iterator[tuple[int, bytes]]:
    """Lines with their numbers, without their ends and without the mark that some editors put before the first."""
    with opened_text(path) as file:
        for number, line in enumerate(file, start=1):
            yield number, (line.removeprefix(BOM) if number == 1 else line).removesuffix(b"\n").removesuffix(b"\r")


def read_text(path: Path) -> str:
    try:
        with opened_text(path) as file:
            return file.read().decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise DataError(f"{path}, line {line}: byte {error.start} is not UTF-8. Save the file as UTF-8.") from error


@contextmanager
def opened_text(path: Path) -> Iterator[BinaryIO]:
    """
    Raises:
        DataError: where it cannot be decompressed, or its beginning is in another encoding than UTF-8.
    """
    with opened_bytes(path) as file:
        buffered = io.BufferedReader(file, HEAD)  # type: ignore[type-var]  # whose beginning can be looked at
        told = other_encoding(path, buffered.peek(HEAD)[:HEAD])
        if told is not None:
            raise DataError(told)
        yield buffered  # type: ignore[misc]


@contextmanager
def opened_bytes(path: Path) -> Iterator[BinaryIO]:
    """The contents of a file, of one ending in .gz or .zst what is compressed in it.

    Raises:
        DataError: where it cannot be decompressed.
    """
    if not is_compressed(path):
        with path.open("rb") as file:
            yield file
        return
    try:
        with pyarrow.input_stream(str(path), compression="detect") as stream:
            yield io.BufferedReader(stream)
    except OSError as error:
        raise DataError(f"{path}: cannot be decompressed: {str(error).rstrip('.')}. Compress the file again.") from error


FORMATS = {
    ".json": Format("record", json_rows),
    ".jsonl": Format("line", json_lines),
    ".csv": Format("line", csv_rows),
    ".parquet": Format("record", parquet_rows),
    ".txt": Format("line", text_lines),
}
