"""Selected samples as the rows that a stage reads, written to an Arrow file a block at a time."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

import numpy
import pyarrow
from datasets import Dataset, Features

from conf.schema import Data
from conf.stages import Kind
from trainers.data.rows.documents import Block, chunk_columns, chunked, packed_chunk_columns
from trainers.data.rows.packing import pack_lengths, positions
from trainers.data.rows.row_kinds import IDS, ROWS

BLOCK = 1000  # rows held in memory
Batches = Iterator[pyarrow.RecordBatch]


@dataclass(frozen=True)
class Samples:
    """Tokenised samples by their positions. Each batch of the file is read once: pyarrow's take() copies a table of many batches as a whole."""

    batches: list[pyarrow.RecordBatch]
    ends: numpy.ndarray  # the position after the last sample of each batch

    def at(self, wanted: numpy.ndarray) -> pyarrow.RecordBatch:
        ascending = numpy.argsort(wanted, kind="stable")
        numbers, begins = numpy.unique(numpy.searchsorted(self.ends, wanted[ascending], side="right"), return_index=True)
        groups = zip(numbers, numpy.split(wanted[ascending], begins[1:]), strict=True)
        parts = [self.batches[number].take(pyarrow.array(group - self.ends[number] + len(self.batches[number]))) for number, group in groups]
        return pyarrow.concat_batches(parts).take(pyarrow.array(numpy.argsort(ascending)))


def write_rows(samples: Dataset, order: numpy.ndarray, data: Data, kind: Kind, file: Path) -> Dataset:
    """The samples at the positions `order`, chunked or packed if need be, mapped from `file`."""
    features = features_of(data, kind)
    with pyarrow.OSFile(str(file), "wb") as sink, pyarrow.ipc.new_stream(sink, features.arrow_schema) as writer:
        for batch in batches_of(samples, order, data, kind, features):
            writer.write_batch(batch)
    return Dataset.from_file(str(file))


def features_of(data: Data, kind: Kind) -> Features:
    if data.packing:
        return Features(dict.fromkeys(["input_ids", "labels", "position_ids"], IDS))
    return Features(dict.fromkeys(["input_ids", "labels"], IDS) if kind == "text" else ROWS[kind].columns)


def batches_of(samples: Dataset, order: numpy.ndarray, data: Data, kind: Kind, features: Features) -> Batches:
    every = samples.data.select([name for name in features if name in samples.column_names]).to_batches()
    read = Samples(every, numpy.cumsum([len(batch) for batch in every]))
    if kind == "text":
        return chunk_batches(read, order, data, features)
    if data.packing:
        return packed_batches(read, order, samples.with_format("numpy")["tokens"][:][order], data.cutoff, features)
    return plain_batches(read, order, features)


def blocks(order: numpy.ndarray) -> Iterator[numpy.ndarray]:
    return (order[start : start + BLOCK] for start in range(0, len(order), BLOCK))


def plain_batches(samples: Samples, order: numpy.ndarray, features: Features) -> Batches:
    for block in blocks(order):
        yield pyarrow.RecordBatch.from_arrays(samples.at(block).columns, schema=features.arrow_schema)


def packed_batches(samples: Samples, order: numpy.ndarray, lengths: numpy.ndarray, cutoff: int, features: Features) -> Batches:
    """A row is its samples one after the other, so packing changes only where rows begin; positions restart with every sample."""
    rows = iter(pack_lengths(lengths.tolist(), cutoff))
    while block := list(islice(rows, BLOCK)):
        members = numpy.fromiter(chain.from_iterable(block), int)
        batch = samples.at(order[members])
        ends = numpy.cumsum(lengths[members])[numpy.cumsum([len(row) for row in block]) - 1]
        columns = [batch["input_ids"].flatten().to_numpy(), batch["labels"].flatten().to_numpy(), positions(lengths[members])]
        yield list_batch(columns, [0, *ends], features)


def chunk_batches(samples: Samples, order: numpy.ndarray, data: Data, features: Features) -> Batches:
    columns = packed_chunk_columns if data.packing else chunk_columns
    for tokens, begins in chunked(documents(samples, order), data.cutoff):
        made = columns(tokens, begins, data.cutoff)
        yield list_batch(list(made.values()), [*range(0, len(tokens), data.cutoff), len(tokens)], features)


def documents(samples: Samples, order: numpy.ndarray) -> Iterator[Block]:
    for block in blocks(order):
        ids = samples.at(block)["input_ids"]
        yield ids.flatten().to_numpy(), ids.value_lengths().to_numpy()


def list_batch(columns: Iterable[numpy.ndarray], offsets: Sequence[int], features: Features) -> pyarrow.RecordBatch:
    """One list column for each flat array, all with the same offsets."""
    starts = pyarrow.array(offsets, pyarrow.int32())
    lists = [pyarrow.ListArray.from_arrays(starts, pyarrow.array(column, pyarrow.int32())) for column in columns]
    return pyarrow.RecordBatch.from_arrays(lists, schema=features.arrow_schema)
