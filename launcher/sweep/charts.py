"""The pictures of a sweep's page, as SVG that a page can hold: matplotlib draws them, and their letters stay letters."""

import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from launcher.sweep.points import Result
from launcher.sweep.summary import Attempt, Curve, Summary
from launcher.sweep.table import best

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_CURVES = 40  # more lines over each other show nothing; the best ones are drawn
MOST_STEPS = 400  # points of one line: a page has about as many columns for it
BEST, OTHERS = "#d94801", "#9ecae1"
NAMED = ("C0", "C2", "C4", "C5", "C6", "C7", "C8", "C9")  # lines with a colour of their own and a name; C1 and C3 look like that of the best
STATES = {"finished": "#3182bd", "failed": "#de2d26", "stopped": "#fdae6b", "": "#bdbdbd"}
LETTERS: dict[Any, Any] = {"svg.fonttype": "none", "font.family": "sans-serif", "font.size": 9, "svg.hashsalt": "regimen"}
MOST_TICKS = 6  # more values of a parameter are not written below its axis one by one
WIDE_RANGE = 10  # values of a parameter that reach further apart are drawn on a logarithmic scale


def curves_svg(summary: Summary) -> str:
    """Training losses over each other, and evaluation losses beside them; empty where no run has two of either."""
    drawn = drawn_curves(summary)
    titles = (("training loss", "training"), ("evaluation loss", "evaluation"))
    panels = [(title, key) for title, key in titles if any(len(vars(one)[key]) > 1 for one in drawn)]
    if not panels:
        return ""
    figure, axes = figure_of(len(panels), 1, 3.6)
    for place, (title, key) in zip(axes, panels, strict=True):
        draw_lines(place, [(one.point, thinned(vars(one)[key])) for one in drawn], best_number(summary), title)
    handles, labels = axes[0].get_legend_handles_labels()
    axes[-1].legend(handles[::-1], labels[::-1], fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0), title="point")  # the best first
    return as_svg(figure)


def drawn_curves(summary: Summary) -> list[Curve]:
    """Those of the best points, as many as can be told apart; points without an objective come last."""
    order = sorted(summary.results, key=lambda result: (math.inf if result.objective is None else result.objective, result.point.number))
    curves = {one.point: one for one in summary.curves if one.training or one.evaluation}
    return [curves[result.point.number] for result in order if result.point.number in curves][:MOST_CURVES]


def draw_lines(axes: "Axes", lines: Sequence[tuple[int, Sequence[tuple[int, float]]]], first: int | None, title: str) -> None:
    """The best line in a colour of its own, on top; as many others as there are colours in those of matplotlib, the rest pale."""
    for place, (number, line) in reversed([*enumerate(lines)]):
        named, is_best = place < len(NAMED), number == first
        colour = BEST if is_best else NAMED[place] if named else OTHERS
        label = f"{number}{' (best)' if is_best else ''}" if named else None
        marker = "." if len(line) < 30 else ""
        axes.plot(*zip(*line, strict=True) if line else ((), ()), color=colour, linewidth=2.2 if is_best else 1.1, marker=marker, label=label)
    axes.set(title=title, xlabel="step")
    axes.grid(alpha=0.3)


def thinned(line: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    """At most about MOST_STEPS of its points, with the last one; a value that is none (NaN) is left out."""
    whole = [(step, value) for step, value in line if math.isfinite(value)]
    every = max(1, math.ceil(len(whole) / MOST_STEPS))
    return [*whole[::every], *([whole[-1]] if whole and (len(whole) - 1) % every else [])]


def parameters_svg(summary: Summary) -> str:
    """A panel for each swept key: its value against the objective; empty where nothing was measured alike."""
    panels = parameters(summary.results)
    if not panels:
        return ""
    columns = min(3, len(panels))
    figure, axes = figure_of(columns, math.ceil(len(panels) / columns), 2.8)
    for place, (key, points) in zip(axes, panels.items(), strict=False):
        draw_parameter(place, key, points, best_number(summary))
    for unused in axes[len(panels) :]:
        unused.remove()
    return as_svg(figure)


def parameters(results: Sequence[Result]) -> dict[str, list[tuple[str, Result]]]:
    """Each key that was swept with its values and what came of them; nothing where fewer than two points were measured alike."""
    measured = [result for result in results if result.objective is not None]
    pairs = {pair for result in measured for pair in varied(result)}
    keys = [key for key in dict.fromkeys(key for result in measured for key, _ in varied(result)) if sum(1 for name, _ in pairs if name == key) > 1]
    if len(measured) < 2 or len({result.measure for result in measured}) > 1:
        return {}
    return {key: [(dict(varied(result))[key], result) for result in measured if key in dict(varied(result))] for key in keys}


def varied(result: Result) -> list[tuple[str, str]]:
    return [(key, value) for key, _, value in (text.partition("=") for text in result.point.varied)]


@dataclass(frozen=True)
class Scale:
    """Where the values of a key lie."""

    places: list[float]  # of each value that was given
    names: dict[float, str]  # what is written at which place, from the lowest
    is_numeric: bool
    is_logarithmic: bool


def scale_of(values: Sequence[str]) -> Scale:
    """Numbers where they are, others one beside the next."""
    numbers = [number for number in map(as_number, values) if number is not None]
    if len(numbers) == len(values):
        wide = min(numbers) > 0 and max(numbers) / min(numbers) >= WIDE_RANGE
        return Scale(numbers, {place: f"{place:g}" for place in sorted(set(numbers))}, True, wide)
    names = list(dict.fromkeys(values))
    return Scale([float(names.index(value)) for value in values], {float(at): name for at, name in enumerate(names)}, False, False)


def draw_parameter(axes: "Axes", key: str, points: Sequence[tuple[str, Result]], first: int | None) -> None:
    scale = scale_of([value for value, _ in points])
    axes.set_xscale("log" if scale.is_logarithmic else "linear")
    if not scale.is_numeric or len(scale.names) <= MOST_TICKS:
        axes.set_xticks([*scale.names], [*scale.names.values()])
        axes.minorticks_off()
    if not scale.is_numeric:
        axes.set_xlim(-0.5, len(scale.names) - 0.5)
    for place, (_, result) in zip(scale.places, points, strict=True):
        is_best = result.point.number == first
        axes.scatter([place], [result.objective or 0.0], s=40 if is_best else 26, color=BEST if is_best else "#3182bd", zorder=4 if is_best else 3)
    axes.set(xlabel=key, ylabel=points[0][1].measure)
    axes.grid(alpha=0.3)


def as_number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def timeline_svg(summary: Summary) -> str:
    """Which point had which GPU when. Time runs while the sweep ran: what lay between two of its starts is left out."""
    if not summary.attempts:
        return ""
    rows = lanes(summary.attempts)
    figure, (axes,) = figure_of(1, 1, 0.8 + 0.32 * len(rows))
    for height, (_, bars) in enumerate(rows):
        for bar in bars:
            begin, end = (elapsed(summary, moment) / 60 for moment in (bar.started, bar.ended))
            axes.broken_barh([(begin, max(end - begin, 1e-3))], (height - 0.4, 0.8), facecolor=STATES.get(bar.state, STATES[""]), edgecolor="white")
            axes.text((begin + end) / 2, height, str(bar.point), ha="center", va="center", fontsize=8, color="white", clip_on=True)
    for moment in summary.starts[1:]:
        axes.axvline(elapsed(summary, moment) / 60, color="#636363", linewidth=1, linestyle=":")
    axes.set_yticks(range(len(rows)), [name for name, _ in rows])
    axes.set(xlabel="minutes of the sweep", ylim=(len(rows) - 0.5, -0.5))
    axes.set_xlim(left=0)
    return as_svg(figure)


def lanes(attempts: Sequence[Attempt]) -> list[tuple[str, list[Attempt]]]:
    """A row for each GPU; points without one fill rows from the first that is free."""
    gpus = sorted({gpu for one in attempts for gpu in one.gpus}, key=lambda gpu: (len(gpu), gpu))
    rows = [(f"GPU {gpu}", [one for one in attempts if gpu in one.gpus]) for gpu in gpus]
    slots: list[list[Attempt]] = []
    for one in (one for one in attempts if not one.gpus):
        free = next((slot for slot in slots if slot[-1].ended <= one.started), None)
        slots.append([one]) if free is None else free.append(one)
    return [*rows, *((f"slot {number}", slot) for number, slot in enumerate(slots, start=1))]


def at_once(own: Sequence[Attempt]) -> int:
    """How many of a row ran at the same time at most: several where points share a GPU."""
    moments = sorted([(one.started, 1) for one in own] + [(one.ended, -1) for one in own])  # of one moment, ends come first
    return max(1, *accumulate(change for _, change in moments))


def elapsed(summary: Summary, moment: float) -> float:
    """Seconds that the sweep had run by then."""
    total = 0.0
    for at, start in enumerate(summary.starts):
        following = summary.starts[at + 1] if at + 1 < len(summary.starts) else math.inf
        if moment < following:
            return total + max(0.0, moment - start)
        total += max([one.ended for one in summary.attempts if start <= one.started < following], default=start) - start
    return total


def best_number(summary: Summary) -> int | None:
    winner = best(summary.results)
    return None if winner is None else winner.point.number


def figure_of(columns: int, rows: int, height: float) -> "tuple[Figure, list[Axes]]":
    """Inches; drawn without pyplot, so that nothing of it outlives the picture."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(LETTERS):
        figure = Figure(figsize=(10, height * rows), layout="constrained")
        return figure, list(figure.subplots(rows, columns, squeeze=False).flat)


def as_svg(figure: "Figure") -> str:
    """The element alone: without the head of a file, which names an address, and without its measures, so that it fills the page's width."""
    from matplotlib import rc_context

    text = io.StringIO()
    with rc_context(LETTERS):
        figure.savefig(text, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    whole = text.getvalue()
    element = re.sub(r"\s*<metadata>.*?</metadata>", "", whole[whole.index("<svg") :], flags=re.DOTALL)
    return re.sub(r'(<svg [^>]*?)width="[^"]*" height="[^"]*"', r"\1", element, count=1)
