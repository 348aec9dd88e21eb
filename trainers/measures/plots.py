"""Pictures of a run. `python -m trainers.measures.plots FILE < plan.json` draws the memory of a plan that has not run."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from conf.records import is_step, read_lines
from conf.run_dir import RunDir
from trainers.measures.curves import SMOOTHED_FROM, frame_of, last_of_each_step, resumed_steps, smoothed
from trainers.measures.lettering import lettering
from trainers.measures.memory_bars import draw_compared, draw_phases

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LOSS = {"loss": {"loss": "training"}}
# Panels beside the loss: their curves, by the names of progress.jsonl.
PANELS: dict[str, dict[str, str]] = {
    "reward": {"reward": "all answers", "reward_chosen": "chosen", "reward_rejected": "rejected", "reward_margin": "lead of the chosen"},
    "share of pairs in order": {"reward_accuracy": "training"},
    "log-probability": {"logp_chosen": "chosen", "logp_rejected": "rejected"},
    "divergence from the reference": {"kl": "training"},
    "entropy": {"entropy": "training"},
    "tokens of an answer": {"answer_length": "training"},
}
LOGARITHMIC = (*LOSS,)  # panels whose values fall by orders of magnitude where a run goes well
COLOURS = (("#9ecae1", "#08519c"), ("#a1d99b", "#006d2c"), ("#fcbba1", "#a50f15"), ("#bcbddc", "#54278f"))  # raw, smoothed
EVALUATION, RESUMED = "#d94801", "#636363"


def draw_loss(run_dir: RunDir) -> None:
    """plots/loss.png: training loss raw and smoothed, evaluation loss; beside it a panel for each thing that the stage reports."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    entries = read_lines(run_dir.progress, is_step).entries
    panels = LOSS | reported_panels(entries)
    rows, columns = panel_grid(len(panels))
    figure, grid = pyplot.subplots(rows, columns, figsize=(8 * columns, 4.5 * rows), dpi=120, squeeze=False)
    for axes, (title, curves) in zip(grid.flat, panels.items(), strict=False):
        draw_curves(axes, entries, curves, title)
    for unused in [*grid.flat][len(panels) :]:
        unused.remove()
    title = lettering(f"{run_dir.path.parent.name} {run_dir.path.name}")
    figure.suptitle(title.text, fontfamily=title.fonts)
    figure.tight_layout()
    run_dir.plots.mkdir(exist_ok=True)
    figure.savefig(run_dir.loss_plot)
    pyplot.close(figure)


def reported_panels(entries: Sequence[dict[str, Any]]) -> dict[str, dict[str, str]]:
    """Of PANELS, those curves that the run has points of."""
    there = {key.removeprefix("eval_") for entry in entries for key in entry}
    found = {title: {key: label for key, label in curves.items() if key in there} for title, curves in PANELS.items()}
    return {title: curves for title, curves in found.items() if curves}


def panel_grid(count: int) -> tuple[int, int]:
    """(rows, columns): one column for one panel, two for up to four, else three."""
    columns = 1 if count == 1 else 2 if count <= 4 else 3
    return -(-count // columns), columns


def draw_curves(axes: "Axes", entries: Sequence[dict[str, Any]], curves: dict[str, str], title: str) -> None:
    """Each curve as logged, pale, and smoothed; evaluations of the same thing as points. The legend stands above the frame and hides nothing."""
    shown: list[float] = []
    for (key, label), (pale, strong) in zip(curves.items(), COLOURS, strict=False):
        steps, values = last_of_each_step(entries, key)
        shown += values
        draw_curve(axes, steps, values, (label, f"{label}, each step" if len(curves) == 1 else ""), (pale, strong))
        evaluated, evaluations = last_of_each_step(entries, f"eval_{key}")
        if evaluated:
            colour, name = (EVALUATION, "evaluation") if len(curves) == 1 else (strong, f"{label}, evaluation")
            axes.plot(evaluated, evaluations, color=colour, marker="o", markersize=5, linestyle=":", linewidth=1, label=name)
        shown += evaluations
    for number, step in enumerate(resumed_steps(entries)):
        axes.axvline(step, color=RESUMED, linestyle="-.", linewidth=1, label="went on from a checkpoint" if number == 0 else "")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set(xlabel="step")
    axes.set_title(title, loc="left")
    axes.grid(alpha=0.3)
    set_frame(axes, shown, title)
    axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=3, frameon=False, fontsize=9, borderaxespad=0.2)


def draw_curve(axes: "Axes", steps: Sequence[int], values: Sequence[float], labels: tuple[str, str], colours: tuple[str, str]) -> None:
    """One line where the points are few, else a pale one and its smoothed one; an empty label stays out of the legend."""
    (label, label_of_all), (pale, strong) = labels, colours
    if len(values) < SMOOTHED_FROM:
        axes.plot(steps, values, color=strong, linewidth=1.8, marker=".", label=label)  # a line alone needs two points
        return
    axes.plot(steps, values, color=pale, linewidth=1, label=label_of_all)
    axes.plot(steps, smoothed(values), color=strong, linewidth=2, label=f"{label}, smoothed")


def set_frame(axes: "Axes", values: Sequence[float], title: str) -> None:
    """The vertical axis, with words for what it does not show."""
    frame = frame_of(values, title in LOGARITHMIC)
    if frame.logarithmic:
        from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.set_ylabel("logarithmic")
    if frame.limits is not None:
        axes.set_ylim(*frame.limits)
        axes.set_ylabel(f"{frame.outside} points lie outside of the frame" if frame.outside != 1 else "1 point lies outside of the frame")


def draw_memory(run_dir: RunDir) -> None:
    """plots/memory.png: what was predicted, and beside it what was measured. A folder that was made without a plan has none."""
    if not run_dir.plan.exists():
        return
    run_dir.plots.mkdir(exist_ok=True)
    plan = json.loads(run_dir.plan.read_text(encoding="utf-8"))
    draw_compared(plan, json.loads(run_dir.memory.read_text(encoding="utf-8"))["compared"], run_dir.memory_plot)


if __name__ == "__main__":
    draw_phases(json.load(sys.stdin), Path(sys.argv[1]))
