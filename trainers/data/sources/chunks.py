"""The records of the sets, a chunk at a time: formats with a record a line or a row group are read lazily, others whole."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

import pyarrow.parquet

from conf.data_layout import Layout, layout_of_record
from conf.data_registry import Source
from conf.data_sets import data_ending, ending_of, limit_of, parts_of
from conf.stages import Kind
from trainers.data.sources.columns import NamedColumns
from trainers.data.sources.generated import generated_records
from trainers.data.sources.layout import guess_layout
from trainers.data.sources.records import Records, RowError, load_hub, opened_bytes, parquet_file, read_file, read_hub, records_of_hub, without_nulls
from trainers.data.sources.rows import BrokenJson, Row, parsed
from trainers.errors import DataError

SIZE = 1000  # records that a process reads at once
BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Chunk:
    set: int  # position among the sets of the run
    name: str  # of the set
    origin: str  # file or hub id
    unit: str  # what a number counts: record or line
    layout: Layout
    records: list[Row]

    def place(self, number: int) -> str:
        return f"{self.origin}, {self.unit} {number}"


def chunks_of(sources: Sequence[Source], max_samples: int | None, kind: Kind, size: int = SIZE) -> Iterator[Chunk]:
    """Every set in chunks, one set after the other, each cut to its first samples.

    Raises:
        DataError: naming the file that cannot be read, is empty or fits no layout, or a column of the registry that no record has.
    """
    for number, source in enumerate(sources):
        left, named = limit_of(source, max_samples), NamedColumns(source)
        for part in parts_of(source):
            if left == 0 and not named.absent:
                break
            for chunk in chunks_of_part(number, part, left, kind, size, named):
                left = None if left is None else left - len(chunk.records)
                yield chunk
        named.refuse_absent()


def chunks_of_part(number: int, part: Source, limit: int | None, kind: Kind, size: int, named: NamedColumns) -> Iterator[Chunk]:
    """One file or hub set in chunks, cut to its first `limit` records."""
    origin, unit, opened_rows = opened(part, kind)
    every = named.looked_for(opened_rows)
    rows = islice(every, limit)
    first = list(islice(rows, size))
    layout = part.layout or guessed_layout(origin, unit, first)
    for records in chain([first], in_blocks(rows, size)):
        yield Chunk(number, part.name, origin, unit, layout, records)
    if named.absent:
        deque(every, maxlen=0)  # one of the records beyond the limit may have it


def in_blocks(rows: Iterator[Row], size: int) -> Iterator[list[Row]]:
    while block := list(islice(rows, size)):
        yield block


def opened(source: Source, kind: Kind) -> tuple[str, str, Iterator[Row]]:
    """(origin, unit, records) of a set."""
    file = source.file
    if file is not None and file.is_file() and data_ending(file) in LAZY:
        unit, rows = LAZY[ending_of(file)]
        return str(file), unit, rows(file)
    if source.hub_id is not None:
        loaded = load_hub(source.hub_id, source.subset, source.split, source.folder)
        return source.hub_id, "record", enumerate(records_of_hub(loaded), start=1)
    records = read_source(source, kind)
    return records.origin, records.unit, iter(records.rows)


def read_source(source: Source, kind: Kind) -> Records:
    if source.hub_id is not None:
        return read_hub(source.hub_id, source.subset, source.split, source.folder)
    return generated_records(kind) if source.file is None else read_file(source.file)


def guessed_layout(origin: str, unit: str, rows: Sequence[Row]) -> Layout:
    """The layout that fits the columns of the first good record; the others must fit it too.

    Raises:
        DataError: when none can be read, or none fits a layout.
    """
    if not rows:
        raise DataError(f"{origin} holds no records. Give a file with at least one.")
    readable = [(number, record) for number, record in map(readable_row, rows) if record is not None]
    if not readable:
        number, record = rows[0]
        raise DataError(f"{origin}, {unit} {number}{broken(record)}. No record of this file can be read; each line must hold one JSON object.")
    layouts = (layout_of_record(record) for _, record in readable if isinstance(record, dict))
    return next((layout for layout in layouts if layout is not None), None) or guess_layout(Records(origin, unit, readable[:1]))


def readable_row(row: Row) -> Row:
    """The row with its record parsed; None where it cannot be."""
    try:
        return row[0], parsed(row[1])
    except RowError:
        return row[0], None


def broken(record: object) -> str:
    try:
        parsed(record)
    except BrokenJson as error:
        return f", column {error.column}: {error}"
    return ": holds null"


def lines_of(path: Path) -> Iterator[tuple[int, bytes]]:
    with opened_bytes(path) as file:
        for number, line in enumerate(file, start=1):
            content = (line.removeprefix(BOM) if number == 1 else line).rstrip(b"\r\n")
            if content.strip():
                yield number, content


def rows_of_parquet(path: Path) -> Iterator[Row]:
    number = 0
    try:
        with parquet_file(path) as file:
            for batch in file.iter_batches(SIZE):
                for record in batch.to_pylist():
                    number += 1
                    yield number, without_nulls(record)
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as Parquet: {str(error).rstrip('.')}. Write the file again.") from error


def documents_of(path: Path) -> Iterator[Row]:
    """Each line that is not blank is one document."""
    for number, line in lines_of(path):
        try:
            yield number, {"text": line.decode()}
        except UnicodeDecodeError as error:
            raise DataError(f"{path}, line {number}: byte {error.start} of it is not UTF-8. Save the file as UTF-8.") from error


LAZY: dict[str, tuple[str, Callable[[Path], Iterator[Row]]]] = {
    ".jsonl": ("line", lines_of),
    ".parquet": ("record", rows_of_parquet),
    ".txt": ("line", documents_of),
}


def record_count(sources: Sequence[Source]) -> int | None:
    """How many records there are where that costs little: for the time that is left. None: unknown before they are read."""
    files = [part.file for source in sources for part in parts_of(source)]
    counts = [count_lines(file) if file is not None and file.suffix in (".jsonl", ".txt") and file.is_file() else None for file in files]
    return None if None in counts else sum(count for count in counts if count is not None)


def count_lines(path: Path) -> int:
    with path.open("rb") as file:
        return sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))
