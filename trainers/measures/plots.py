"""Pictures of a run. `python -m trainers.measures.plots FILE < plan.json` draws the memory of a plan that has not run."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from conf.run_dir import RunDir
from trainers.measures.comparison import GIB, measured_phase

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SMOOTHING = 0.9  # weight of the past in the exponential mean
SMALL_SHARE = 0.01  # of the highest phase: terms that never reach it are drawn as one
SMALL = "terms below 1 %"
OUTSIDE_OF_TORCH = "#bdbdbd"
# Panels beside the loss: their curves, by the names of progress.jsonl.
PANELS: dict[str, dict[str, str]] = {
    "reward": {"reward": "all answers", "reward_chosen": "chosen", "reward_rejected": "rejected", "reward_margin": "lead of the chosen"},
    "share of pairs in order": {"reward_accuracy": "training"},
    "log-probability": {"logp_chosen": "chosen", "logp_rejected": "rejected"},
    "divergence from the reference": {"kl": "training"},
    "entropy": {"entropy": "training"},
    "tokens of an answer": {"answer_length": "training"},
}
FARTHEST = 5
COLOURS = (("#9ecae1", "#08519c"), ("#a1d99b", "#006d2c"), ("#fcbba1", "#a50f15"), ("#bcbddc", "#54278f"))  # raw, smoothed


def smoothed(values: list[float], weight: float = SMOOTHING) -> list[float]:
    """Exponential moving mean, corrected for its start at zero (as Adam's moments are, arXiv:1412.6980)."""
    mean, result = 0.0, []
    for count, value in enumerate(values, start=1):
        mean = weight * mean + (1 - weight) * value
        result.append(mean / (1 - weight**count))
    return result


def last_of_each_step(entries: list[dict[str, Any]], key: str) -> tuple[list[int], list[float]]:
    """A resumed run repeats the steps after its checkpoint: the later entry is the one that counts."""
    by_step = {entry["step"]: entry[key] for entry in entries if key in entry}
    steps = sorted(by_step)
    return steps, [by_step[step] for step in steps]


def draw_loss(run_dir: RunDir) -> None:
    """plots/loss.png: training loss raw and smoothed, evaluation loss; beside it a panel for each thing that the stage reports."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    entries = [json.loads(line) for line in run_dir.progress.read_text(encoding="utf-8").splitlines()]
    panels = reported_panels(entries)
    rows, columns = panel_grid(1 + len(panels))
    figure, axes = pyplot.subplots(rows, columns, figsize=(8 * columns, 4.5 * rows), dpi=120, squeeze=False)
    first, *others = axes.flat
    draw_curves(first, entries, {"loss": "training"}, "loss")
    show_zero(first)
    for panel, (title, curves) in zip(others, panels.items(), strict=False):
        draw_curves(panel, entries, curves, title)
    for unused in others[len(panels) :]:
        unused.remove()
    figure.suptitle(f"{run_dir.path.parent.name} {run_dir.path.name}")
    figure.tight_layout()
    run_dir.plots.mkdir(exist_ok=True)
    figure.savefig(run_dir.loss_plot)
    pyplot.close(figure)


def show_zero(axes: "Axes") -> None:
    """Zero and every point within the frame, with the margin that matplotlib gave to the points alone; a policy's loss may be negative."""
    low, high = axes.dataLim.intervaly
    low, high = min(0.0, low), max(0.0, high)
    margin = axes.margins()[1] * (high - low)
    axes.set_ylim(low - margin if low < 0 else low, high + margin)


def reported_panels(entries: list[dict[str, Any]]) -> dict[str, dict[str, str]]:
    """Of PANELS, those curves that the run has points of."""
    there = {key for entry in entries for key in entry}
    found = {title: {key: label for key, label in curves.items() if key in there} for title, curves in PANELS.items()}
    return {title: curves for title, curves in found.items() if curves}


def panel_grid(count: int) -> tuple[int, int]:
    """(rows, columns): one column for one panel, two for up to four, else three."""
    columns = 1 if count == 1 else 2 if count <= 4 else 3
    return -(-count // columns), columns


def draw_curves(axes: "Axes", entries: list[dict[str, Any]], curves: dict[str, str], title: str) -> None:
    """Each curve raw and smoothed; evaluations of the same thing as points."""
    for (key, label), (pale, strong) in zip(curves.items(), COLOURS, strict=False):
        steps, values = last_of_each_step(entries, key)
        axes.plot(steps, values, color=pale, linewidth=1, marker="." if len(steps) == 1 else "", label=label)  # a line needs two points
        axes.plot(steps, smoothed(values), color=strong, linewidth=2, label=f"{label}, smoothed")
        evaluated, evaluations = last_of_each_step(entries, f"eval_{key}")
        if evaluated:
            colour, name = ("#d94801", "evaluation") if len(curves) == 1 else (strong, f"{label}, evaluation")
            axes.plot(evaluated, evaluations, color=colour, marker="o", linestyle="--", linewidth=1, label=name)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set(xlabel="step", ylabel=title)
    axes.grid(alpha=0.3)
    axes.legend()


def draw_memory(run_dir: RunDir) -> None:
    """plots/memory.png: the plan's phases, and what was measured of them. A folder that was made without a plan has none."""
    if not run_dir.plan.exists():
        return
    measured = json.loads(run_dir.memory.read_text(encoding="utf-8"))["compared"]["phases"]
    run_dir.plots.mkdir(exist_ok=True)
    draw_phases(
        json.loads(run_dir.plan.read_text(encoding="utf-8")), {name: pair["measured"] for name, pair in measured.items()}, run_dir.memory_plot
    )


def draw_phases(plan: dict[str, Any], measured: dict[str, int], file: Path) -> None:
    """Every predicted phase as a bar of its terms against the capacity of one GPU (of one rank's share of a CPU node); black: measured."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    memory = plan["memory"]
    names, stacks = list(memory["phases"]), stacked(memory)
    figure, axes = pyplot.subplots(figsize=(10, 5.5), dpi=120)
    colours = pyplot.get_cmap("tab20").colors
    below = [0.0] * len(names)
    for number, (term, sizes) in enumerate(stacks.items()):
        colour = OUTSIDE_OF_TORCH if term in memory["outside"] else colours[number % len(colours)]
        axes.barh(names, [size / GIB for size in sizes], left=below, label=term, color=colour)
        below = [low + size / GIB for low, size in zip(below, sizes, strict=True)]
    marks = [(measured[phase] / GIB, row) for phase, row in highest_rows(memory).items() if phase in measured]
    if marks:
        axes.scatter(*zip(*marks, strict=True), marker="|", s=350, linewidths=2.5, color="black", label="measured, torch alone", zorder=3)
    capacity = capacity_of(plan["run"])
    if in_sight(capacity, memory["required"]):
        axes.axvline(capacity / GIB, color="#cb181d", linewidth=2, label=f"capacity, {capacity / GIB:.1f} GiB")
    axes.invert_yaxis()
    there = "" if capacity is None else f" of {capacity / GIB:.1f}"
    axes.set(xlabel="GiB of one rank", title=f"{plan['run']['name']}: predicted memory by phase; needs {memory['required'] / GIB:.2f}{there} GiB")
    axes.grid(axis="x", alpha=0.3)
    axes.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1.01, 1))
    figure.tight_layout()
    figure.savefig(file, format="png")
    pyplot.close(figure)


def highest_rows(memory: dict[str, Any]) -> dict[str, int]:
    """Of the predicted phases that fall into one measured phase, the row of the highest: its figure is the one to compare."""
    by_size = sorted(enumerate(memory["phases"].items()), key=lambda row: row[1][1]["bytes"])
    return {phase: row for row, (name, _) in by_size if (phase := measured_phase(name)) is not None}


def stacked(memory: dict[str, Any]) -> dict[str, list[int]]:
    """Bytes of every term in each phase, in the order of the phases; what torch does not allocate stands outside, on top of all."""
    phases = [phase["terms"] for phase in memory["phases"].values()]
    least = SMALL_SHARE * max(phase["bytes"] for phase in memory["phases"].values())
    terms = dict.fromkeys(term for phase in phases for term in phase)
    tall = [term for term in terms if max(phase.get(term, 0) for phase in phases) >= least]
    small = [sum(size for term, size in phase.items() if term not in tall) for phase in phases]
    stacks = {term: [phase.get(term, 0) for phase in phases] for term in tall}
    outside = {term: [size] * len(phases) for term, size in memory["outside"].items()}
    return {**stacks, **({SMALL: small} if any(small) else {}), **outside}


def in_sight(capacity: int | None, required: int) -> bool:
    """Farther away its line would press the bars flat."""
    return capacity is not None and capacity <= FARTHEST * required


def capacity_of(run: dict[str, Any]) -> int | None:
    """Of one GPU; where there is none, a rank's share of the node."""
    node = run["node"]
    if node["gpus"]:
        return node["gpu_memory"]
    return node["host_memory"] // run["cluster"]["ranks_per_node"] if node["host_memory"] else None


if __name__ == "__main__":
    draw_phases(json.load(sys.stdin), {}, Path(sys.argv[1]))
