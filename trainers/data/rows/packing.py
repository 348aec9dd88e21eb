"""Best-fit decreasing packing: short samples share rows of at most the cutoff, each with positions of its own."""

from bisect import bisect_left, insort
from collections.abc import Sequence
from typing import TypedDict

import numpy


class PackedRow(TypedDict):
    input_ids: list[int]
    labels: list[int]
    position_ids: list[int]  # restart at 0 with every sample


def pack_lengths(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Indices of the samples in each row: the longest first, each into the fullest row that still has room for it.

    Every length is at most `capacity`; equal lengths keep their order, so the result depends on nothing else.
    """
    rows: list[list[int]] = []
    spaces: list[int] = []  # distinct free spaces, ascending
    rows_with: dict[int, list[int]] = {}  # free space -> rows, the newest last
    for sample in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        row, space = take_row(lengths[sample], spaces, rows_with, capacity, len(rows))
        if row == len(rows):
            rows.append([])
        rows[row].append(sample)
        give_space(row, space - lengths[sample], spaces, rows_with)
    return rows


def take_row(length: int, spaces: list[int], rows_with: dict[int, list[int]], capacity: int, new_row: int) -> tuple[int, int]:
    """The row with the least space in which `length` fits, removed from the table, or a new one; and its free space."""
    at = bisect_left(spaces, length)
    if at == len(spaces):
        return new_row, capacity
    space = spaces[at]
    row = rows_with[space].pop()
    if not rows_with[space]:
        del rows_with[space]
        del spaces[at]
    return row, space


def give_space(row: int, space: int, spaces: list[int], rows_with: dict[int, list[int]]) -> None:
    if space == 0:
        return
    if space not in rows_with:
        rows_with[space] = []
        insort(spaces, space)
    rows_with[space].append(row)


def packed_row(samples: Sequence[tuple[list[int], list[int]]]) -> PackedRow:
    """One row of (ids, labels) pairs; the first label of each sample must be masked, as it would be learned from the sample before."""
    return {
        "input_ids": [token for ids, _ in samples for token in ids],
        "labels": [label for _, labels in samples for label in labels],
        "position_ids": [position for ids, _ in samples for position in range(len(ids))],
    }


def positions(lengths: numpy.ndarray) -> numpy.ndarray:
    """The position of every token within its own sample, the samples one after the other."""
    begins = numpy.cumsum(lengths) - lengths
    return numpy.arange(lengths.sum(), dtype=numpy.int32) - numpy.repeat(begins.astype(numpy.int32), lengths)
