"""The curves of a run from progress.jsonl: every value once, thinned out so that no peak is lost."""

import math
from array import array
from bisect import bisect_left
from collections import OrderedDict
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

from conf.run_dir import RunDir
from launcher.launch.progress import Tail

BUCKETS = 400  # of steps, of which each keeps its lowest and its highest value
KEPT_RUNS = 8  # whose curves stay in memory
NO_CURVE = ("step", "of", "time", "epoch", "eta_seconds")
SMOOTHINGS = ("0.6", "0.9", "0.97")  # how much of the average up to a step the next one keeps
FIRST = ("loss", "reward", "reward_accuracy", "reward_margin", "kl", "lr", "grad_norm", "tokens_per_second")


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


class Curves:
    """Those of one run; reads what was added since the last look."""

    def __init__(self, run_dir: RunDir) -> None:
        self.tail = Tail(run_dir, from_start=True)
        self.series: dict[str, Series] = {}

    def read(self) -> None:
        for entry in self.tail.new_entries():
            for name, value in entry.items():
                if name not in NO_CURVE:
                    self.series.setdefault(name, Series()).add(entry["step"], float(value))

    def charts(self, keep: float = 0.0) -> list[dict[str, Any]]:
        """One for each measure: its values in training, smoothed with `keep`, and in evaluation where it has them."""
        names = list(dict.fromkeys(name.removeprefix("eval_") for name in self.series))
        ordered = sorted(names, key=lambda name: (FIRST.index(name) if name in FIRST else len(FIRST), name))
        return [{"name": name, "training": self.drawn(name, keep), "evaluation": self.drawn(f"eval_{name}")} for name in ordered]

    def drawn(self, name: str, keep: float = 0.0) -> dict[str, Any]:
        return self.series.get(name, Series()).thinned(keep)


def smoothing(asked: str) -> float:
    """One of SMOOTHINGS; 0 for anything else."""
    return float(asked) if asked in SMOOTHINGS else 0.0


class AllCurves:
    """The curves of the runs that were looked at last. What they hold can be read again at any time."""

    def __init__(self) -> None:
        self.kept: OrderedDict[RunDir, Curves] = OrderedDict()
        self.lock = Lock()  # for whoever reads them: pages ask at the same time

    def of(self, run_dir: RunDir) -> Curves:
        size = run_dir.progress.stat().st_size if run_dir.progress.is_file() and not run_dir.progress.is_symlink() else 0
        curves = self.kept.pop(run_dir, None)
        if curves is None or curves.tail.offset > size:  # it was written anew
            curves = Curves(run_dir)
        self.kept[run_dir] = curves
        while len(self.kept) > KEPT_RUNS:
            self.kept.popitem(last=False)
        if size:
            curves.read()
        return curves
