"""Pictures of a run."""

import json
from typing import Any

from conf.run_dir import RunDir

SMOOTHING = 0.9  # weight of the past in the exponential mean


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
    """plots/loss.png: training loss raw and smoothed, evaluation loss."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    entries = [json.loads(line) for line in run_dir.progress.read_text(encoding="utf-8").splitlines()]
    steps, losses = last_of_each_step(entries, "loss")
    evaluated, evaluations = last_of_each_step(entries, "eval_loss")
    figure, axes = pyplot.subplots(figsize=(8, 4.5), dpi=120)
    axes.plot(steps, losses, color="#9ecae1", linewidth=1, label="training")
    axes.plot(steps, smoothed(losses), color="#08519c", linewidth=2, label="training, smoothed")
    if evaluated:
        axes.plot(evaluated, evaluations, color="#d94801", marker="o", linewidth=1.5, label="evaluation")
    axes.set(xlabel="step", ylabel="loss", title=f"{run_dir.path.parent.name} {run_dir.path.name}")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.tight_layout()
    run_dir.plots.mkdir(exist_ok=True)
    figure.savefig(run_dir.loss_plot)
    pyplot.close(figure)
