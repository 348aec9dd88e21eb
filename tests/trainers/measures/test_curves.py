"""Curves before they are drawn: repeated steps, smoothing, the part of an axis that is shown."""

import math

import numpy as np
import pytest

from trainers.measures.curves import Frame, frame_of, last_of_each_step, local_lines, resumed_steps, smoothed


def test_of_a_step_that_was_repeated_the_later_entry_counts() -> None:
    entries = [{"step": 1, "loss": 5.0}, {"step": 2, "loss": 4.0}, {"step": 3, "loss": 9.0}, {"step": 2, "loss": 3.0}, {"step": 2, "eval_loss": 1.0}]
    assert last_of_each_step(entries, "loss") == ([1, 2, 3], [5.0, 3.0, 9.0])
    assert last_of_each_step(entries, "eval_loss") == ([2], [1.0])
    assert last_of_each_step(entries, "other") == ([], [])


def test_steps_from_which_a_run_went_on_are_named_once() -> None:
    assert resumed_steps([{"step": 3, "resumed_from": 2}, {"step": 4}, {"step": 3, "resumed_from": 2}, {"step": 7, "resumed_from": 6}]) == [2, 6]


@pytest.mark.parametrize("count", [1, 2, 10, 200])
def test_a_line_stays_what_it_is(count: int) -> None:
    """A mean of the past alone would lie above all of a falling line."""
    falling = [6.0 - 0.01 * step for step in range(count)]
    assert smoothed(falling) == pytest.approx(falling)
    assert smoothed([]) == []


def test_a_loss_that_falls_fast_at_its_start_is_followed() -> None:
    losses = [0.05 + 6 * math.exp(-step / 6) + 0.7 * math.exp(-step / 60) for step in range(200)]
    assert smoothed(losses) == pytest.approx(losses, rel=0.08)  # the exponential mean of before lay 110 % too high at step 20


def test_noise_is_taken_away_at_the_last_point_too() -> None:
    noise = np.random.default_rng(0).normal(size=400)
    through = smoothed([float(value) for value in 3 + noise])
    assert np.abs(np.array(through[100:]) - 3).max() < 0.8
    assert np.std(through[100:]) < 0.35 * np.std(noise)


def test_each_point_lies_on_the_least_squares_line_of_its_neighbours() -> None:
    values, reach = np.random.default_rng(1).normal(size=30), 4
    windows = [slice(min(max(place - reach, 0), 30 - 9), min(max(place - reach, 0), 30 - 9) + 9) for place in range(30)]
    fits = [np.polyfit(np.arange(30)[window], values[window], 1) for window in windows]
    assert local_lines(values, np.full(30, reach)) == pytest.approx([np.polyval(fit, place) for place, fit in enumerate(fits)])


@pytest.mark.parametrize(
    ("values", "frame"),
    [
        ([2.5 - 0.01 * step for step in range(100)], Frame()),
        ([6.0, 6.0, *[0.5] * 98], Frame(logarithmic=True)),
        ([6.0, 0.5], Frame()),  # of two points none is far away from the others
        ([-6.0, *[0.0, 1.0] * 50], Frame(limits=(-0.25, 1.25), outside=1)),
        ([1.0] * 50, Frame()),
    ],
)
def test_what_is_far_away_from_nearly_all_points_does_not_flatten_them(values: list[float], frame: Frame) -> None:
    assert frame_of(values, may_be_logarithmic=True) == frame


def test_only_what_falls_by_orders_of_magnitude_gets_a_logarithmic_axis() -> None:
    assert not frame_of([6.0, 6.0, *[0.5] * 98], may_be_logarithmic=False).logarithmic
