"""The records of the sets, a chunk at a time."""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

from conf.data_layout import Layout
from conf.data_registry import Source
from conf.data_sets import limit_of, parts_of
from conf.stages import Kind
from trainers.data.sources.columns import NamedColumns
from trainers.data.sources.layout import guessed_layout
from trainers.data.sources.records import opened
from trainers.data.sources.rows import Row

SIZE = 1000  # records that a process reads at once


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
    whole = opened(part, kind)
    every = named.looked_for(whole.rows)
    rows = islice(every, limit)
    first = list(islice(rows, size))
    layout = part.layout or guessed_layout(whole, first)
    for records in chain([first], in_blocks(rows, size)):
        yield Chunk(number, part.name, whole.origin, whole.unit, layout, records)
    if named.absent:
        deque(every, maxlen=0)  # one of the records beyond the limit may have it


def in_blocks(rows: Iterator[Row], size: int) -> Iterator[list[Row]]:
    while block := list(islice(rows, size)):
        yield block


def record_count(sources: Sequence[Source]) -> int | None:
    """How many records there are where that costs little: for the time that is left. None: unknown before they are read."""
    files = [part.file for source in sources for part in parts_of(source)]
    counts = [count_lines(file) if file is not None and file.suffix in (".jsonl", ".txt") and file.is_file() else None for file in files]
    return None if None in counts else sum(count for count in counts if count is not None)


def count_lines(path: Path) -> int:
    with path.open("rb") as file:
        return sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))
