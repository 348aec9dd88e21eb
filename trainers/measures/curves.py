"""The numbers of a picture: curves without repeated steps, smoothed, and the part of an axis that is worth showing. Nothing is drawn here."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

SMOOTHED_FROM = 10  # points: fewer are seen one by one
WIDE = 5.0  # times the median, or the range of nearly all points: farther away a few points would press the others flat
NEARLY_ALL = (2, 98)  # percentiles
ROOM = 0.25  # of the range of nearly all points, beside them on each side


@dataclass(frozen=True)
class Frame:
    """What of the vertical axis is shown."""

    logarithmic: bool = False
    limits: tuple[float, float] | None = None  # None: every point, as matplotlib chooses
    outside: int = 0  # points that are not shown


def last_of_each_step(entries: Sequence[dict[str, Any]], key: str) -> tuple[list[int], list[float]]:
    """A resumed run repeats the steps after its checkpoint: the later entry is the one that counts."""
    by_step = {entry["step"]: entry[key] for entry in entries if key in entry}
    steps = sorted(by_step)
    return steps, [by_step[step] for step in steps]


def resumed_steps(entries: Sequence[dict[str, Any]]) -> list[int]:
    """The steps from whose checkpoints the run went on."""
    return sorted({entry["resumed_from"] for entry in entries if "resumed_from" in entry})


def smoothed(values: Sequence[float]) -> list[float]:
    """Each point by a line through its neighbours on both sides, twice; the first points have few neighbours, since a loss falls fast there.

    A mean of the past alone lags behind a curve that falls: it lies above all of its last points. A line fitted to both sides does not.
    """
    reach = np.minimum(np.arange(len(values)) // 4, max(3, len(values) // 20))
    return [float(value) for value in local_lines(local_lines(np.asarray(values, dtype=float), reach), reach)]


def local_lines(values: "np.ndarray[Any, Any]", reach: "np.ndarray[Any, Any]") -> "np.ndarray[Any, Any]":
    """At each place the value of the least-squares line through the 2 x `reach` + 1 points around it; by running sums, in linear time.

    At the ends these points lie on one side: with half of them the last value would follow their noise.
    """
    places = np.arange(len(values))
    first = np.clip(places - reach, 0, np.maximum(len(values) - 1 - 2 * reach, 0))
    last = np.minimum(first + 2 * reach, len(values) - 1)
    count, middle = last - first + 1, (first + last) / 2
    means = sums(values, first, last) / count
    spread = count * (count**2 - 1) / 12  # sum of (place - middle)^2 over consecutive places
    slopes = (sums(places * values, first, last) - middle * count * means) / np.maximum(spread, 1)
    return np.asarray(means + slopes * (places - middle))


def sums(values: "np.ndarray[Any, Any]", first: "np.ndarray[Any, Any]", last: "np.ndarray[Any, Any]") -> "np.ndarray[Any, Any]":
    running = np.concatenate([[0.0], np.cumsum(values)])
    return np.asarray(running[last + 1] - running[first])


def frame_of(values: Sequence[float], may_be_logarithmic: bool) -> Frame:
    """All points where they are of one size; a logarithmic axis for a loss that falls far; else nearly all points, and how many are not shown."""
    if len(values) < SMOOTHED_FROM:
        return Frame()
    found = np.asarray(values, dtype=float)
    if may_be_logarithmic and found.min() > 0 and found.max() >= WIDE * np.median(found):
        return Frame(logarithmic=True)
    low, high = np.percentile(found, NEARLY_ALL)
    if high == low or found.max() - found.min() < WIDE * (high - low):
        return Frame()
    low, high = low - ROOM * (high - low), high + ROOM * (high - low)
    return Frame(limits=(float(low), float(high)), outside=int(((found < low) | (found > high)).sum()))
