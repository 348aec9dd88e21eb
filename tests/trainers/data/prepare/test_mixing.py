"""Two sets become one order, by hand for small ones."""

from dataclasses import replace

import pytest

from conf.schema import Data
from launcher.composition.compose import compose
from trainers.data.prepare.mixing import mixed_order

SETS = [0, 0, 0, 0, 1, 1]  # four samples of one set, two of another


def data(mixing: str, probabilities: list[float] | None = None) -> Data:
    return replace(compose(["model=demo", "data=demo"]).data, mixing=mixing, probabilities=probabilities)


def test_concatenated_sets_follow_one_another():
    assert list(mixed_order(SETS, data("concatenate"), 0)) == [0, 1, 2, 3, 4, 5]


def test_interleaving_under_ends_when_the_smaller_set_is_used_up():
    assert list(mixed_order(SETS, data("interleave_under"), 0)) == [0, 4, 1, 5]


def test_interleaving_over_ends_when_the_larger_set_is_used_up_and_repeats_the_smaller():
    assert list(mixed_order(SETS, data("interleave_over"), 0)) == [0, 4, 1, 5, 2, 4, 3, 5]


def test_probabilities_give_the_shares_and_the_seed_the_order():
    sets = [0] * 3000 + [1] * 3000
    one, same, other = (list(mixed_order(sets, data("interleave_under", [0.8, 0.2]), seed)) for seed in (1, 1, 2))
    assert one == same
    assert one != other
    share = sum(position < 3000 for position in one) / len(one)
    assert share == pytest.approx(0.8, abs=0.03)
    assert [position for position in one if position < 3000] == list(range(3000))  # each set in its own order, up to its end


def test_a_set_of_which_nothing_is_left_is_passed_over():
    assert mixed_order([0, 0, 2], data("interleave_over", [0.4, 0.2, 0.4]), 3)[0] in (0, 2)
    assert sorted(set(mixed_order([0, 0, 2], data("interleave_over", [0.4, 0.2, 0.4]), 3))) == [0, 1, 2]
    assert list(mixed_order([1, 1], data("interleave_under", [0.5, 0.5]), 3)) == [0, 1]
