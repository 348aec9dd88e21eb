"""The values of one measure by step, and what is drawn of many: no peak is lost, and no value is made up."""

import math
from array import array
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

BUCKETS = 400  # of steps, of which each keeps its lowest and its highest value


@dataclass
class Series:
    steps: "array[int]" = field(default_factory=lambda: array("q"))
    values: "array[float]" = field(default_factory=lambda: array("d"))
    not_finite: list[int] = field(default_factory=list)  # steps whose value was NaN or infinite

    def add(self, step: int, value: float) -> None:
        """A run that goes on from a checkpoint makes steps again: they replace what came after it."""
        if self.steps and step <= self.steps[-1]:
            there = bisect_left(self.steps, step)
            del self.steps[there:], self.values[there:]
        if self.not_finite and step <= self.not_finite[-1]:
            del self.not_finite[bisect_left(self.not_finite, step) :]
        if math.isfinite(value):
            self.steps.append(step)
            self.values.append(value)
        else:
            self.not_finite.append(step)

    def extend(self, steps: Sequence[int], values: Sequence[float], rising: bool) -> None:
        """The same as `add` of each; `rising`: every step is later than the one before it."""
        last = max(self.steps[-1] if self.steps else steps[0] - 1, self.not_finite[-1] if self.not_finite else steps[0] - 1)
        if rising and steps[0] > last and all(map(is_finite, values)):
            self.steps.extend(steps)
            self.values.extend(values)
        else:
            for step, value in zip(steps, values, strict=True):
                self.add(step, float(value) if is_finite(value) else math.inf)

    def thinned(self, keep: float = 0.0) -> dict[str, Any]:
        """What is drawn of it; with `keep` also the smoothed values of the same steps, which are made of all values."""
        chosen = thinned(self.values, BUCKETS)
        drawn = {
            "steps": [self.steps[place] for place in chosen],
            "values": [self.values[place] for place in chosen],
            "not_finite": self.not_finite[:BUCKETS],
        }
        whole = smoothed(self.values, keep) if keep else []
        return drawn | ({"smoothed": [whole[place] for place in chosen]} if keep else {})


def is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number that no float holds
        return False


def smoothed(values: "array[float]", keep: float) -> list[float]:
    """The exponential moving average, each value with the weight `keep` of the one after it; corrected for its start as Adam's moments are.

    None lies outside of the values up to its own.
    """
    found, average, weight = list[float](), 0.0, 0.0
    for value in values:
        weight = keep * weight + 1.0 - keep
        share = (1.0 - keep) / weight
        near, far = sorted((average, value)) if found else (value, value)
        average = min(max(average + share * (value - average), near), far)
        found.append(average)
    return found


def thinned(values: "array[float]", buckets: int) -> list[int]:
    """Places of the values that are drawn: all where they are few, else the lowest and the highest of each bucket, and the last."""
    if len(values) <= 2 * buckets:
        return list(range(len(values)))
    size = math.ceil(len(values) / buckets)
    found: set[int] = {0, len(values) - 1}
    for start in range(0, len(values), size):
        places = range(start, min(start + size, len(values)))
        found |= {min(places, key=values.__getitem__), max(places, key=values.__getitem__)}
    return sorted(found)
