"""The memory of a run as bars: every predicted phase of a plan, or what was predicted beside what was measured."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainers.measures.comparison import GIB, measured_phase
from trainers.measures.lettering import lettering

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SMALL_SHARE = 0.01  # of the highest row: terms that never reach it are drawn as one
SMALL = "terms below 1 %"
KEPT_BY_TORCH = "reserved by torch, free"
OUTSIDE_OF_TORCH, SMALL_COLOUR = "#969696", "#d9d9d9"
MEASURED = "#252525"
FARTHEST = 5
THIN, WHOLE = 0.4, 0.8  # of the height of a row: a bar that shares it with another, and one alone
MIB = 2**20


@dataclass(frozen=True)
class Row:
    label: str
    terms: dict[str, int]  # predicted, in bytes
    measured: int | None = None

    @property
    def predicted(self) -> int:
        return sum(self.terms.values())


def draw_phases(plan: dict[str, Any], file: Path) -> None:
    """Every predicted phase as a bar of its terms against the capacity of one GPU (of one rank's share of a CPU node)."""
    memory = plan["memory"]
    capacity = capacity_of(plan["run"])
    there = "" if capacity is None else f" of {size(capacity)}"
    title = f"{plan['run']['name']}: predicted memory of one rank by phase; it needs {size(memory['required'])}{there}"
    draw([phase_rows(memory)], [capacity], list(memory["outside"]), title, file)


def draw_compared(plan: dict[str, Any], compared: dict[str, Any], file: Path) -> None:
    """What was measured beside what was predicted of it. On CPUs only a node's host memory is measured; phases stand below as predicted."""
    memory, capacity, outside = plan["memory"], capacity_of(plan["run"]), list(plan["memory"]["outside"])
    name = plan["run"]["name"]
    rows = gpu_rows(memory, compared)
    if any(row.measured is not None for row in rows):
        draw([rows], [capacity], outside, f"{name}: memory of one rank, predicted and measured", file)
    else:
        title = f"{name}: host memory of the node, predicted and measured; below, one rank as predicted"
        draw([host_rows(memory, compared), rows], [None, capacity], outside, title, file)


def phase_rows(memory: dict[str, Any]) -> list[Row]:
    return [Row(name, {**phase["terms"], **memory["outside"]}) for name, phase in memory["phases"].items()]


def gpu_rows(memory: dict[str, Any], compared: dict[str, Any]) -> list[Row]:
    """A row for each measured phase, by the highest of the predicted ones that fall into it; the last row is what nvidia-smi shows."""
    found = compared["phases"]
    rows = [Row(phase, memory["phases"][name]["terms"], measured_in(found, phase)) for phase, name in highest_of(memory).items()]
    if not found and "allocated" in compared:
        rows = [Row("torch's peak", memory["phases"][memory["peak"]]["terms"], compared["allocated"]["measured"])]
    if "nvml" not in compared:
        return rows
    free = max(0, memory["reserved"] - memory["allocated"])
    whole = {**memory["phases"][memory["peak"]]["terms"], KEPT_BY_TORCH: free, **memory["outside"]}
    return [*rows, Row("nvidia-smi", whole, compared["nvml"]["measured"])]


def host_rows(memory: dict[str, Any], compared: dict[str, Any]) -> list[Row]:
    return [Row("host memory", memory.get("host_terms", {}), measured_in(compared, "host"))]


def measured_in(compared: dict[str, Any], name: str) -> int | None:
    return int(compared[name]["measured"]) if name in compared else None


def highest_of(memory: dict[str, Any]) -> dict[str, str]:
    """For each measured phase, in the order of a step, the predicted one that is highest in it: its figure is the one to compare."""
    highest: dict[str, str] = {}
    for name, phase in memory["phases"].items():
        measured = measured_phase(name)
        if measured is not None and (measured not in highest or phase["bytes"] > memory["phases"][highest[measured]]["bytes"]):
            highest[measured] = name
    return highest


def draw(groups: Sequence[Sequence[Row]], capacities: Sequence[int | None], outside: Sequence[str], title: str, file: Path) -> None:
    """Groups of rows below each other, each with its own scale; one legend for all of them beside the frames."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    heights = [1 + len(rows) for rows in groups]
    figure, frames = pyplot.subplots(len(groups), figsize=(10, 5.5), dpi=120, squeeze=False, height_ratios=heights, layout="constrained")
    stacks = [stacked(rows, outside) for rows in groups]
    shades = colours([*dict.fromkeys(term for stack in stacks for term in stack)], outside)
    for axes, rows, stack, capacity in zip(frames.flat, groups, stacks, capacities, strict=True):
        draw_rows(axes, rows, stack, shades, capacity)
    legend(figure, [*frames.flat])
    letters = lettering(title)
    figure.suptitle(letters.text, fontfamily=letters.fonts, fontsize=11)
    figure.savefig(file)
    pyplot.close(figure)


def draw_rows(axes: "Axes", rows: Sequence[Row], stack: dict[str, list[int]], shades: dict[str, Any], capacity: int | None) -> None:
    largest = max(max(row.predicted, row.measured or 0) for row in rows)
    unit, name = (GIB, "GiB") if largest >= 0.1 * GIB else (MIB, "MiB")
    below = [0.0] * len(rows)
    heights = [WHOLE if row.measured is None else THIN for row in rows]
    places = [place if row.measured is None else place - THIN / 2 for place, row in enumerate(rows)]
    for term, sizes in stack.items():
        widths = [size / unit for size in sizes]
        axes.barh(places, widths, heights, left=below, label=term, color=shades[term])
        below = [low + width for low, width in zip(below, widths, strict=True)]
    both = [(place + THIN / 2, row) for place, row in enumerate(rows) if row.measured is not None]
    if both:
        axes.barh([place for place, _ in both], [(row.measured or 0) / unit for _, row in both], THIN, label="measured", color=MEASURED)
    for place, row in zip(places, rows, strict=True):
        note(axes, row.predicted / unit, place, size(row.predicted))
    for place, row in both:
        note(axes, (row.measured or 0) / unit, place, measured_words(row))
    if capacity is not None and in_sight(capacity, largest):
        axes.axvline(capacity / unit, color="#cb181d", linewidth=2, label=f"capacity, {size(capacity)}")
    axes.set_yticks(range(len(rows)), [row.label for row in rows])
    farthest = capacity if capacity is not None and in_sight(capacity, largest) else 0
    axes.set_xlim(0, max(1.05 * farthest, (1.5 if both else 1.2) * largest) / unit)  # room for the words beside the bars
    axes.invert_yaxis()
    axes.set(xlabel=name)
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)


def note(axes: "Axes", x: float, y: float, text: str) -> None:
    axes.annotate(text, (x, y), xytext=(4, 0), textcoords="offset points", va="center", fontsize=7, color=MEASURED)


def measured_words(row: Row) -> str:
    assert row.measured is not None
    error = (row.predicted - row.measured) / row.measured
    return f"{size(row.measured)} measured; predicted {abs(error):.1%} {'more' if error > 0 else 'less'}"


def legend(figure: "Figure", frames: "Sequence[Axes]") -> None:
    """Of all frames, each label once, in a column to the right, where it hides nothing."""
    labelled = [pair for axes in frames for pair in zip(*axes.get_legend_handles_labels(), strict=True)]
    handles = {label: handle for handle, label in reversed(labelled)}
    labels = [*dict.fromkeys(label for _, label in labelled)]
    figure.legend([handles[label] for label in labels], labels, fontsize=7, loc="outside right upper")


def colours(terms: Sequence[str], outside: Sequence[str]) -> dict[str, Any]:
    from matplotlib import colormaps

    palette = colormaps["tab20"].colors  # type: ignore[attr-defined]
    plain = [term for term in terms if term not in (*outside, SMALL)]
    return {
        **dict.fromkeys(outside, OUTSIDE_OF_TORCH),
        SMALL: SMALL_COLOUR,
        **{term: palette[number % len(palette)] for number, term in enumerate(plain)},
    }


def stacked(rows: Sequence[Row], outside: Sequence[str]) -> dict[str, list[int]]:
    """Bytes of every term in each row, in the order of the rows; what torch does not allocate stands outside, on top of all."""
    least = SMALL_SHARE * max((row.predicted for row in rows), default=0)
    terms = dict.fromkeys(term for row in rows for term in row.terms if term not in outside)
    tall = [term for term in terms if max(row.terms.get(term, 0) for row in rows) >= least]
    small = [sum(size for term, size in row.terms.items() if term not in (*tall, *outside)) for row in rows]
    stacks = {term: [row.terms.get(term, 0) for row in rows] for term in tall}
    beyond = {term: [row.terms.get(term, 0) for row in rows] for term in outside}
    return {**stacks, **({SMALL: small} if any(small) else {}), **{term: sizes for term, sizes in beyond.items() if any(sizes)}}


def size(count: int) -> str:
    return f"{count / GIB:.2f} GiB" if count >= 0.1 * GIB else f"{count / MIB:.1f} MiB"


def in_sight(capacity: int | None, required: int) -> bool:
    """Farther away its line would press the bars flat."""
    return capacity is not None and capacity <= FARTHEST * required


def capacity_of(run: dict[str, Any]) -> int | None:
    """Of one GPU; where there is none, a rank's share of the node."""
    node = run["node"]
    if node["gpus"]:
        return int(node["gpu_memory"]) if node["gpu_memory"] else None
    return node["host_memory"] // run["cluster"]["ranks_per_node"] if node["host_memory"] else None
