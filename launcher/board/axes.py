"""What a curve can be drawn over beside its steps: the time and the tokens until each of them, as far as progress.jsonl says."""

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

from conf.records import is_whole
from launcher.board.series import Series

STEP, TIME, TOKENS = AXES = ("step", "time", "tokens")
MOST = 2.0**63  # tokens a second: no more is believed


@dataclass
class Clock:
    """When the steps of a run were logged, and how many tokens a second it trained then."""

    rates: Series
    trained: Series = field(default_factory=Series)  # seconds since the epoch, of the lines of training
    logged: Series = field(default_factory=Series)  # of the last line of a step, which may be of its evaluation
    begun: set[int] = field(default_factory=set)  # steps whose line is the first of a start
    restarts: set[int] = field(default_factory=set)  # steps from whose checkpoint the run went on

    def read(self, columns: Mapping[str, Sequence[Any]], rising: bool) -> None:
        if "resumed_from" in columns:
            self.begun.update(columns["step"])
            self.restarts.update(filter(is_whole, columns["resumed_from"]))
        if "time" in columns:
            self.logged.extend(columns["step"], columns["time"], rising)
            if "loss" in columns:
                self.trained.extend(columns["step"], columns["time"], rising)

    def known(self, asked: str) -> str:
        """The axis that was asked for where the run has it; otherwise steps."""
        there = {TIME: self.trained.steps, TOKENS: self.trained.steps and self.rates.steps}
        return asked if there.get(asked) else STEP

    def over(self, axis: str) -> Callable[[int], float]:
        """What stands below a step on an axis: itself, seconds since the first line of training, or tokens. It never falls."""
        if axis == STEP:
            return float
        steps, places = self.trained.steps, self.seconds() if axis == TIME else self.tokens()
        return lambda step: places[at - 1] if (at := bisect_right(steps, step)) else 0.0

    def seconds(self) -> list[float]:
        return list(accumulate((time - self.trained.values[0] for time in self.trained.values), max))

    def tokens(self) -> list[float]:
        """The rate of each line times the seconds since the line before it, evaluations left out.

        The first line of a start has none before it: its steps count as many tokens as those of the line after it.
        """
        rates, ends = dict(zip(self.rates.steps, self.rates.values, strict=True)), dict(zip(self.logged.steps, self.logged.values, strict=True))
        per_step: list[float | None] = []
        for before, (step, time) in zip([0, *self.trained.steps], zip(self.trained.steps, self.trained.values, strict=True), strict=False):
            is_known = 0 <= rates.get(step, -1) < MOST and before in ends and before < step and step not in self.begun
            per_step.append(rates[step] * max(0.0, time - ends[before]) / (step - before) if is_known else None)
        filled = filled_up(per_step)
        widths = [step - before for before, step in zip([0, *self.trained.steps], self.trained.steps, strict=False)]
        return list(accumulate(width * each for width, each in zip(widths, filled, strict=True)))


def filled_up(values: Sequence[float | None]) -> list[float]:
    """Each that is None as the next one that is known, or the last one; 0 where none is."""
    found, later = list[float](), next((value for value in reversed(values) if value is not None), 0.0)
    for value in reversed(values):
        later = later if value is None else value
        found.append(later)
    return found[::-1]
