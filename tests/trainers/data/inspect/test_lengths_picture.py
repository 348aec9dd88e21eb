"""The bars of the histogram of lengths."""

import numpy
import pytest

from trainers.data.inspect.lengths_picture import BINS, bin_edges


def test_no_bar_lies_on_both_sides_of_the_cutoff() -> None:
    assert bin_edges(numpy.array([41, 43]), cutoff=42).tolist() == [41, 42, 43, 44]
    assert 2049 in bin_edges(numpy.array([10, 100_000]), cutoff=2048)


@pytest.mark.parametrize("lengths", [[43] * 29 + [2_000_033], [1], []])
def test_every_sample_lies_in_a_bar(lengths: list[int]) -> None:
    edges = bin_edges(numpy.array(lengths, dtype=int), cutoff=2048)
    assert numpy.histogram(lengths, bins=edges)[0].sum() == len(lengths)
    assert len(edges) <= BINS + 2


def test_one_long_document_leaves_bars_for_the_others() -> None:
    lengths = numpy.array([50, 100, 200, 400, 2_000_000])
    assert numpy.count_nonzero(numpy.histogram(lengths, bins=bin_edges(lengths, cutoff=2048))[0]) == 5
