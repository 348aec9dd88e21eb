"""Successive halving (Jamieson and Talwalkar, arXiv:1502.07943): every point for a few steps, the best of them for more, the best of those for all.

Each round trains its points from the start, over the whole course of their learning rates: a run that was cut short says little about a schedule that
it has not finished.
"""

import math
from collections.abc import Callable, Sequence

from launcher.errors import ConfigError

STEPS = "training.max_steps"  # what a round is measured in
Points = Sequence[Sequence[str]]  # the overrides of each


def steps_of_rounds(most: int, rounds: int, factor: int) -> list[int]:
    """Steps of the points of each round; those of the last have `most`.

    Raises:
        ConfigError: where the first round would have none.
    """
    found = [most // factor**left for left in reversed(range(rounds))]
    if found[0] < 1:
        raise ConfigError(
            f"{STEPS}={most} is too little for {rounds} rounds: the first would have no step. Lower hydra.sweeper.rounds, or train longer."
        )
    return found


def checked(rounds: object, factor: object) -> tuple[int, int]:
    """The settings as they were given.

    Raises:
        ConfigError: for what is not a whole number of at least 2.
    """
    for key, value in (("rounds", rounds), ("factor", factor)):
        if type(value) is not int or value < 2:
            raise ConfigError(f"hydra.sweeper.{key}={value} is out of range. It must be a whole number of at least 2.")
    assert isinstance(rounds, int)
    assert isinstance(factor, int)
    return rounds, factor


def best_of(objectives: Sequence[float | None], factor: int) -> list[int]:
    """The places of those that go on, the best first: one in `factor` of those that have a result, at least one of them."""
    measured = [(objective, place) for place, objective in enumerate(objectives) if objective is not None]
    return [place for _, place in sorted(measured)[: math.ceil(len(measured) / factor)]]


def with_steps(points: Points, steps: int) -> list[list[str]]:
    return [[f"{STEPS}={steps}" if text.partition("=")[0] == STEPS else text for text in point] for point in points]


def most_steps(points: Points) -> int:
    """The steps of the last round, which all points share.

    Raises:
        ConfigError: where they are not given, or not one number.
    """
    given = {text.partition("=")[2] for point in points for text in point if text.partition("=")[0] == STEPS}
    only = given.pop() if len(given) == 1 else ""
    if not only.isdecimal():
        raise ConfigError(f"hydra/sweeper=halving needs the steps of the points that reach its last round: give one {STEPS}=N.")
    return int(only)


def run_rounds(points: Points, rounds: int, factor: int, train: Callable[[Points], Sequence[float | None]]) -> list[float | None]:
    """The objectives of the last round that had points. `train` runs points and says what each came to: less is better, None is no result.

    A point that is alone has nobody to be compared with: it is trained once, for all steps.

    Raises:
        ConfigError: as steps_of_rounds and most_steps.
    """
    found: list[float | None] = []
    most = most_steps(points)
    for steps in steps_of_rounds(most, rounds, factor):
        if not points:
            break
        if len(points) == 1 and steps < most:
            continue
        found = list(train(with_steps(points, steps)))
        points = [points[place] for place in best_of(found, factor)]
    return found
