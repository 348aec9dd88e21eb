"""Which rows a batch is made of: their numbers in the prepared data travel with it, past what a stage makes of them."""

import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy
from datasets import Dataset, IterableDataset

NUMBER = "row_number"


def numbered(rows: Any) -> Any:
    """Rows that know their number. A stream is left as it is: it has no numbers, and `number_of` makes one of each row's tokens."""
    if isinstance(rows, IterableDataset):
        return rows
    assert isinstance(rows, Dataset)
    return rows.add_column(NUMBER, numpy.arange(len(rows)))


class KeepingNumbers:
    """A collator that leaves the numbers of its rows in the batch: under NUMBER, or in each row where the batch is a list of rows."""

    def __init__(self, collate: Callable[[list[Any]], Any]) -> None:
        self.collate = collate

    def __call__(self, rows: list[Mapping[str, Any]]) -> Any:
        numbers = [number_of(row) for row in rows]
        batch = self.collate([{name: value for name, value in row.items() if name != NUMBER} for row in rows])
        if isinstance(batch, list):
            return [{**row, NUMBER: number} for row, number in zip(batch, numbers, strict=True)]
        batch[NUMBER] = numbers
        return batch


def number_of(row: Mapping[str, Any]) -> int:
    """Of a row that has none (a stream, or what a stage made of rows): the checksum of its tokens, so that the same row has the same number."""
    if NUMBER in row:
        return int(row[NUMBER])
    tokens = next((value for name, value in sorted(row.items()) if name.endswith("input_ids") or name.endswith("_ids")), [])
    return zlib.crc32(numpy.asarray(tokens, dtype=numpy.int64).tobytes())


def taken_numbers(batches: Sequence[Any]) -> list[int]:
    """Take the numbers out of batches, so that no model sees them."""
    found: list[int] = []
    for batch in batches:
        for part in batch if isinstance(batch, list) else [batch]:
            number = part.pop(NUMBER, None) if hasattr(part, "pop") else None
            found += number if isinstance(number, list) else [] if number is None else [number]
    return found
