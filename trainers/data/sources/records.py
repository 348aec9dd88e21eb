"""Reads the records of a file or a hub data set, and says exactly where a file is broken."""

import csv
import io
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import pyarrow
import pyarrow.parquet

from conf.data_layout import json_type
from conf.data_sets import ending_of, is_compressed
from trainers.errors import DataError

if TYPE_CHECKING:
    from datasets import Dataset

SHOWN = 20  # bad rows that a message lists


class RowError(ValueError):
    """What is wrong with one record; whoever reads many gathers them into one DataError."""


@dataclass(frozen=True)
class Records:
    origin: str  # file or hub id
    unit: str  # what a number counts: record or line
    rows: list[tuple[int, object]]

    def place(self, number: int) -> str:
        return f"{self.origin}, {self.unit} {number}"


def read_file(path: Path) -> Records:
    """Every record of a file; numbers start at 1.

    Raises:
        DataError: naming the file that is absent or not read, or the line and column where it is broken.
    """
    return not_empty(READERS[ending_of(path)](path))


def read_json(path: Path) -> Records:
    content = read_text(path)
    try:
        value = json.loads(content)
    except json.JSONDecodeError as error:
        hint = "If it holds one object per line, name it .jsonl." if error.msg == "Extra data" else "Fix the file there."
        raise DataError(f"{path}, line {error.lineno}, column {error.colno}: broken JSON: {error.msg}. {hint}") from error
    except RecursionError as error:
        raise DataError(f"{path}: its JSON is nested too deeply to be read. Give a list of flat records.") from error
    if not isinstance(value, list):
        raise DataError(
            f"{path} holds {json_type(value)}, not a list of records. Put the records into one list, or one on each line of a .jsonl file."
        )
    return Records(str(path), "record", list(enumerate(value, start=1)))


def read_json_lines(path: Path) -> Records:
    rows: list[tuple[int, object]] = []
    broken: list[str] = []
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            rows.append((number, json.loads(line)))
        except json.JSONDecodeError as error:
            broken.append(f"line {number}, column {error.colno}: broken JSON: {error.msg}")
    refuse_bad_rows(str(path), broken, len(rows) + len(broken), "Each line must hold one object. Fix these lines.")
    return Records(str(path), "line", rows)


def read_csv(path: Path) -> Records:
    """Every value as text, by the names in the first line; a number is a record's last line."""
    csv.field_size_limit(sys.maxsize)  # the default of 131,072 characters is less than a long conversation
    reader = csv.DictReader(io.StringIO(read_text(path), newline=""), strict=True)
    rows: list[tuple[int, object]] = []
    uneven: list[str] = []
    try:
        for record in reader:
            if None in record or None in record.values():
                uneven.append(f"line {reader.line_num}: has {'more' if None in record else 'fewer'} values than the first line has names")
            rows.append((reader.line_num, record))
    except csv.Error as error:
        begin = reader.line_num + 1  # of the broken record; the error may be at the end of the file
        raise DataError(f"{path}, line {begin}: broken CSV: {error}. Quote values that hold commas, quotes or new lines.") from error
    refuse_bad_rows(str(path), uneven, len(rows), "Quote values that hold commas, quotes or new lines.")
    return Records(str(path), "line", rows)


def read_lines(path: Path) -> Records:
    """Each line that is not blank is one document."""
    lines = enumerate(read_text(path).split("\n"), start=1)
    return Records(str(path), "line", [(number, {"text": line.rstrip("\r")}) for number, line in lines if line.strip()])


def read_parquet(path: Path) -> Records:
    try:
        with parquet_file(path) as file:
            values = file.read().to_pylist()
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as Parquet: {str(error).rstrip('.')}. Write the file again.") from error
    return Records(str(path), "record", list(enumerate(map(without_nulls, values), start=1)))


@contextmanager
def parquet_file(path: Path) -> Iterator[pyarrow.parquet.ParquetFile]:
    """Parquet is read from its end, so a compressed file is held in memory whole."""
    with opened_bytes(path) as file, pyarrow.parquet.ParquetFile(io.BytesIO(file.read()) if is_compressed(path) else path) as parquet:
        yield parquet


def without_nulls(record: dict[str, object]) -> dict[str, object]:
    """A record from Arrow without the keys that it did not have: Arrow gives every object the keys of all, with null where a record lacks one."""
    return {column: whole(value) for column, value in record.items()}


def whole(value: object) -> object:
    if isinstance(value, dict):
        return {key: whole(item) for key, item in value.items() if item is not None}
    return [whole(item) for item in value] if isinstance(value, list) else value


def read_text(path: Path) -> str:
    try:
        with opened_bytes(path) as file:
            return file.read().decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise DataError(f"{path}, line {line}: byte {error.start} is not UTF-8. Save the file as UTF-8.") from error


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


READERS = {".json": read_json, ".jsonl": read_json_lines, ".csv": read_csv, ".parquet": read_parquet, ".txt": read_lines}


def read_hub(hub_id: str, subset: str | None, split: str, folder: str | None) -> Records:
    """Every record of one split of a hub data set."""
    return not_empty(Records(hub_id, "record", list(enumerate(records_of_hub(load_hub(hub_id, subset, split, folder)), start=1))))


def records_of_hub(loaded: "Dataset") -> Iterator[dict[str, object]]:
    return map(without_nulls, loaded)


def load_hub(hub_id: str, subset: str | None, split: str, folder: str | None) -> "Dataset":
    """One split of a hub data set, mapped from disk; loading it may download it.

    Raises:
        DataError: when it cannot be loaded.
    """
    from datasets import load_dataset

    try:
        return load_dataset(hub_id, name=subset, split=split, data_dir=folder)
    except (
        OSError,
        ValueError,
    ) as error:  # datasets: ConnectionError, DatasetNotFoundError (both OSError), BuilderConfig and split names (ValueError)
        cause = next(iter(str(error).splitlines()), type(error).__name__)
        raise DataError(
            f"The hub data set {hub_id} (split {split}) cannot be loaded: {cause}. Check its name, or download it and name the file."
        ) from error


def not_empty(records: Records) -> Records:
    if not records.rows:
        raise DataError(f"{records.origin} holds no records. Give a file with at least one.")
    return records


def refuse_bad_rows(origin: str, problems: list[str], total: int, remedy: str) -> None:
    """Nothing is dropped silently: one error lists what is wrong, the first rows in full.

    Raises:
        DataError: when there are problems.
    """
    if problems:
        more = [f"and {len(problems) - SHOWN} more"] if len(problems) > SHOWN else []
        listed = "".join(f"\n  {line}" for line in [*problems[:SHOWN], *more])
        raise DataError(f"{origin}: {len(problems)} of {total} rows cannot be used:{listed}\n{remedy}")
