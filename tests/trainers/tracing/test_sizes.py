"""Bytes of two batches become terms of any batch, or are refused."""

import pytest

from trainers.tracing.live import FREED, GRADIENT, MADE, PHASE, Recording
from trainers.tracing.sizes import Batch, Moment, phases_of, uncovered

SMALL, LARGE, OTHER = Batch(2, 512), Batch(3, 1024), Batch(5, 300)


def recorded(batch: Batch, *sizes, events=None) -> Recording:
    """Everything is made, then everything is freed, in one phase."""
    numbers = range(len(sizes))
    made, freed = [(MADE, number) for number in numbers], [(FREED, number) for number in numbers]
    return Recording([(PHASE, "step"), *made, *(events or []), *freed], [size(batch.samples, batch.length) for size in sizes], [])


def both(*sizes) -> list:
    return phases_of(recorded(SMALL, *sizes), recorded(LARGE, *sizes), (SMALL, LARGE))


@pytest.mark.parametrize(
    "size",
    [
        lambda samples, length: 4096,
        lambda samples, length: 8 * samples,
        lambda samples, length: 256 * length,
        lambda samples, length: 96 * samples * length,
        lambda samples, length: length**2,
        lambda samples, length: 2 * samples * length**2,
    ],
    ids=["constant", "samples", "length", "tokens", "square", "squares"],
)
def test_each_power_of_the_batch_is_found_and_holds_for_another_batch(size):
    (phase,) = both(size)

    assert max(OTHER.of(moment.bytes) for moment in phase.moments) == pytest.approx(size(OTHER.samples, OTHER.length))


def test_what_is_alive_at_once_is_added_up_and_what_was_freed_is_not():
    (phase,) = both(lambda samples, length: 10 * samples * length, lambda samples, length: 1000)

    assert max(OTHER.of(moment.bytes) for moment in phase.moments) == pytest.approx(10 * 1500 + 1000)
    assert OTHER.of(phase.finish) == 0


def test_a_complete_gradient_counts_in_elements():
    events = [(FREED, 0), (GRADIENT, 250)]
    small, large = (Recording([(PHASE, "step"), (MADE, 0), *events, (MADE, 1)], [1000, 8 * batch.samples], []) for batch in (SMALL, LARGE))

    (phase,) = phases_of(small, large, (SMALL, LARGE))

    assert {(moment.gradients, round(OTHER.of(moment.bytes))) for moment in phase.moments} == {(0, 1000), (250, 40)}


def test_bytes_that_grow_in_another_way_are_refused():
    with pytest.raises(ValueError, match=r"of its bytes grow in another way"):
        both(lambda samples, length: samples * (length + 300) * 64)


def test_operations_that_depend_on_the_batch_are_refused():
    def size(samples: int, length: int) -> int:
        return samples * length

    with pytest.raises(ValueError, match="its operations depend on the size of the batch"):
        phases_of(recorded(SMALL, size), recorded(LARGE, size, size), (SMALL, LARGE))


def test_a_moment_that_another_covers_in_every_way_is_dropped():
    low, high, gradients = Moment((1.0,) * 6), Moment((2.0,) * 6), Moment((1.0,) * 6, gradients=5)

    assert set(uncovered([low, high, gradients])) == {high, gradients}
