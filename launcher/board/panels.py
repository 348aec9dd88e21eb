"""The picture of a sweep's keys against its result: places of points in panels, one for each key."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from launcher.sweep.points import Result

WIDTH, HEIGHT, LEFT, RIGHT, ABOVE, BELOW = 340, 230, 62, 14, 22, 42  # of a panel, in units of its own; then its margins
MARGIN = 0.06  # of an axis, beside its outermost points
MOST_NAMES = 5  # below an axis
LINES = 3  # across


@dataclass(frozen=True)
class Dot:
    x: float
    y: float
    point: int
    is_best: bool
    words: str


@dataclass(frozen=True)
class Panel:
    key: str
    measure: str
    dots: tuple[Dot, ...]
    names: tuple[tuple[float, str], ...]  # along the axis of the key
    lines: tuple[tuple[float, str], ...]  # of the result


def panels(results: "Sequence[Result]", best: int | None) -> list[Panel]:
    """One for each swept key that has two values or more; none where fewer than two points were measured alike."""
    from launcher.sweep.charts import parameters

    return [panel(key, points, best) for key, points in parameters(results).items()]


def panel(key: str, points: "Sequence[tuple[str, Result]]", best: int | None) -> Panel:
    from launcher.sweep.charts import scale_of

    scale = scale_of([value for value, _ in points])
    along: Callable[[float], float] = math.log if scale.is_logarithmic else float
    results = [result.objective or 0.0 for _, result in points]
    across = placing(list(map(along, scale.places)), LEFT, WIDTH - RIGHT)
    upwards = placing(results, HEIGHT - BELOW, ABOVE)
    dots = tuple(
        Dot(across(along(place)), upwards(height), one.point.number, one.point.number == best, f"{key}={value}: {one.measure} {height:.4g}")
        for place, height, (value, one) in zip(scale.places, results, points, strict=True)
    )
    names = tuple((across(along(place)), name) for place, name in few(list(scale.names.items())))
    low, high = min(results), max(results)
    heights = dict.fromkeys(low + (high - low) * at / (LINES - 1) for at in range(LINES))
    drawn = tuple(sorted(dots, key=lambda dot: dot.is_best))  # the best on top
    return Panel(key, points[0][1].measure, drawn, names, tuple((upwards(height), f"{height:.4g}") for height in heights))


def placing(values: Sequence[float], begin: float, end: float) -> Callable[[float], float]:
    """Where a value lies between two places; the middle where all are the same."""
    low, high = min(values), max(values)
    if low == high:
        return lambda _: (begin + end) / 2
    return lambda value: round(begin + (end - begin) * (MARGIN + (1 - 2 * MARGIN) * (value - low) / (high - low)), 1)


def few(names: Sequence[tuple[float, str]]) -> list[tuple[float, str]]:
    """The first, the last and some between, where there are too many to be read."""
    if len(names) <= MOST_NAMES:
        return list(names)
    return [names[round(at * (len(names) - 1) / (MOST_NAMES - 1))] for at in range(MOST_NAMES)]
