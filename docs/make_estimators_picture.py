"""Draws the first picture of README from benchmarks/results/memory/peers.json: python -m docs.make_estimators_picture.

One row an estimator, one dot a run: how far its figure is from the measured peak. Dots beyond the picture's edge are drawn on it.
"""

import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

REPOSITORY = Path(__file__).resolve().parent.parent
RESULTS = REPOSITORY / "benchmarks" / "results" / "memory"
PICTURE = REPOSITORY / "docs" / "images" / "estimators.png"
OURS = "regimen, predicted before measuring"
LEFT_OUT = ("regimen, with today's formulas", "published hardware table")  # not predicted before; a floor, no prediction
EDGE = 1.6  # an estimate of 2.6 times the peak


def drawn(errors: dict[str, dict[str, float]]) -> dict[str, list[float]]:
    """The errors of each estimator, ours first, as shares of the measured peak."""
    return {name: sorted(found.values()) for name, found in errors.items() if name not in LEFT_OUT}


def measured_on() -> str:
    first = (RESULTS / "h200_chosen.jsonl").read_text().partition("\n")[0]
    return str(json.loads(first)["surroundings"]["date"])


def main() -> int:
    rows = drawn(json.loads((RESULTS / "peers.json").read_text())["errors"])
    figure, axes = plt.subplots(figsize=(10, 0.55 * len(rows) + 1.3))
    most = max(map(len, rows.values()))
    for at, (name, found) in enumerate(rows.items()):
        ours = name == OURS
        shown = [min(max(error, -1.0), EDGE) for error in found]
        axes.scatter(shown, [at] * len(shown), s=26, color="#c1440e" if ours else "#4a6a8a", alpha=0.65, linewidths=0, zorder=3)
        axes.text(EDGE + 0.06, at, f"{len(found)} of {most} runs", va="center", fontsize=9, color="#555555")
    axes.set_yticks(range(len(rows)), list(rows))
    axes.get_yticklabels()[0].set_fontweight("bold")
    axes.invert_yaxis()
    axes.axvline(0, color="#222222", linewidth=0.8)
    axes.axvspan(-1.05, 0, color="#f3dede", alpha=0.35, zorder=0)
    axes.text(-1.03, len(rows) - 0.45, "too low: permitted, and dies of OOM", fontsize=8, color="#8a3030", va="center")
    axes.set_xlim(-1.05, EDGE + 0.04)
    axes.set_ylim(len(rows) - 0.2, -0.6)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:+.0%}" if value else "0")
    axes.set_xlabel(f"estimate against the measured peak, of the runs that each can describe (NVIDIA H200, {measured_on()})", fontsize=9)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.tick_params(axis="y", length=0)
    figure.tight_layout()
    figure.savefig(PICTURE, dpi=110)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
