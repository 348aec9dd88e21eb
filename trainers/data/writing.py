"""Selected samples as the rows that a stage reads, written to an Arrow file a block at a time."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

import numpy
import pyarrow.compute
from datasets import Dataset, Features

from conf.schema import Data
from trainers.data.documents import chunk_row, chunked, packed_chunk_row
from trainers.data.kinds import Kind
from trainers.data.packing import pack_lengths
from trainers.data.rows import IDS, ROWS

BLOCK = 1000  # rows held in memory
Batches = Iterator[pyarrow.RecordBatch]


def write_rows(samples: Dataset, order: Sequence[int], data: Data, kind: Kind, file: Path) -> Dataset:
    """The samples at the positions `order`, chunked or packed if need be, mapped from `file`."""
    features, batches = rows_of(samples, order, data, kind)
    with pyarrow.OSFile(str(file), "wb") as sink, pyarrow.ipc.new_stream(sink, features.arrow_schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
    return Dataset.from_file(str(file))


def rows_of(samples: Dataset, order: Sequence[int], data: Data, kind: Kind) -> tuple[Features, Batches]:
    if kind == "text":
        columns = ["input_ids", "labels", "position_ids"] if data.packing else ["input_ids", "labels"]
        features = Features(dict.fromkeys(columns, IDS))
        return features, chunk_batches(samples, order, data, features)
    if data.packing:
        features = Features(dict.fromkeys(["input_ids", "labels", "position_ids"], IDS))
        return features, packed_batches(samples, order, data.cutoff, features)
    features = Features(ROWS[kind].columns)
    return features, plain_batches(samples, order, features)


def gathered(samples: Dataset, positions: Sequence[int]) -> pyarrow.Table:
    return samples.with_format("arrow")[list(positions)]


def blocks(order: Sequence[int]) -> Iterator[Sequence[int]]:
    return (order[start : start + BLOCK] for start in range(0, len(order), BLOCK))


def plain_batches(samples: Dataset, order: Sequence[int], features: Features) -> Batches:
    for block in blocks(order):
        yield from gathered(samples, block).select(list(features)).combine_chunks().cast(features.arrow_schema).to_batches()


def packed_batches(samples: Dataset, order: Sequence[int], cutoff: int, features: Features) -> Batches:
    """A row is its samples one after the other, so packing changes only where rows begin; positions restart with every sample."""
    chosen = numpy.asarray(order)
    lengths = samples.with_format("numpy")["tokens"][:][chosen]
    rows = iter(pack_lengths(lengths.tolist(), cutoff))
    while block := list(islice(rows, BLOCK)):
        members = numpy.concatenate([numpy.asarray(row) for row in block])
        table = gathered(samples, chosen[members].tolist())
        ends = numpy.cumsum(lengths[members])
        last_members = numpy.cumsum([len(row) for row in block]) - 1
        offsets = numpy.concatenate([[0], ends[last_members]])
        positions = numpy.arange(ends[-1]) - numpy.repeat(ends - lengths[members], lengths[members])
        columns = [flat(table, "input_ids"), flat(table, "labels"), positions]
        yield list_batch(columns, offsets, features)


def flat(table: pyarrow.Table, column: str) -> numpy.ndarray:
    return pyarrow.compute.list_flatten(table.column(column)).to_numpy()


def list_batch(columns: Sequence[numpy.ndarray], offsets: numpy.ndarray, features: Features) -> pyarrow.RecordBatch:
    """One list column for each flat array, all with the same offsets."""
    starts = pyarrow.array(offsets, pyarrow.int32())
    lists = [pyarrow.ListArray.from_arrays(starts, pyarrow.array(column, pyarrow.int32())) for column in columns]
    return pyarrow.RecordBatch.from_arrays(lists, schema=features.arrow_schema)


def chunk_batches(samples: Dataset, order: Sequence[int], data: Data, features: Features) -> Batches:
    made: Callable[[list[list[int]]], Mapping[str, list[int]]] = packed_chunk_row if data.packing else chunk_row
    rows = (made(pieces) for pieces in chunked(documents(samples, order), data.cutoff))
    while block := list(islice(rows, BLOCK)):
        yield pyarrow.RecordBatch.from_pydict({name: [row[name] for row in block] for name in features}, schema=features.arrow_schema)


def documents(samples: Dataset, order: Sequence[int]) -> Iterator[list[int]]:
    for block in blocks(order):
        yield from gathered(samples, block).column("input_ids").to_pylist()
