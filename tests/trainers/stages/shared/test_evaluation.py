"""How ranks share an evaluation, and how their sums become means. With real ranks: tests/distributed/test_evaluation.py."""

from collections import Counter
from typing import Any

import pytest
import torch

from trainers.stages.shared.evaluation import Batches, Fraction, Turn, each, means_of, turns_of


@pytest.mark.parametrize("ranks", range(1, 6))
@pytest.mark.parametrize("size", range(1, 6))
def test_every_sample_counts_once_and_ranks_make_equal_passes(size: int, ranks: int) -> None:
    for samples in range(1, 24):
        shares = [turns_of(samples, size, rank, ranks) for rank in range(ranks)]
        counted = Counter(sample for share in shares for turn in share if turn.counts for sample in turn.samples)
        assert counted == Counter(range(samples))
        assert len({tuple(len(turn.samples) for turn in share) for share in shares}) == 1
        assert all(0 < len(turn.samples) <= size for share in shares for turn in share)
        assert all(sample < samples for share in shares for turn in share for sample in turn.samples)


def test_a_share_by_hand() -> None:
    """Seven samples on three ranks: two each, and one more for the first, which the others repeat something for."""
    assert turns_of(7, 4, 0, 3) == [Turn((0, 3), True), Turn((6,), True)]
    assert turns_of(7, 4, 1, 3) == [Turn((1, 4), True), Turn((0,), False)]
    assert turns_of(7, 1, 2, 3) == [Turn((2,), True), Turn((5,), True), Turn((0,), False)]


def test_a_batch_is_what_the_collator_makes_of_its_rows() -> None:
    batches = Batches(["a", "b", "c"], [Turn((0, 2), True), Turn((0,), False)], "".join)
    assert [batches[number] for number in range(len(batches))] == [("ac", True), ("a", False)]


def test_a_mean_is_of_numerators_and_denominators_and_leaves_out_what_nothing_counts_for() -> None:
    parts: dict[str, Fraction] = {
        "tokens": Fraction(torch.tensor([6.0, 1.0]), torch.tensor([3.0, 1.0])),
        "good": each(torch.tensor([1.0, float("nan"), 4.0]), torch.tensor([True, False, True])),
        "none": each(torch.tensor([1.0, 2.0]), torch.tensor([False, False])),
    }
    found: dict[str, Any] = means_of(parts)
    assert found == {"tokens": 7 / 4, "good": 5 / 2}


def test_a_repeated_sample_counts_for_nothing_whatever_it_measured() -> None:
    nothing = Fraction(torch.tensor([float("nan"), 3.0]), torch.tensor([2.0, 1.0])).nothing()
    assert nothing.totals.tolist() == [0.0, 0.0]
    assert nothing.counts.tolist() == [0.0, 0.0]
