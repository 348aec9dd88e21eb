"""The page of the GPUs of a sweep, from the raw lines.

python -m benchmarks.speed.pool_page --results benchmarks/results --page docs/reference/gpus_of_a_sweep.md
"""

import json
from pathlib import Path
from typing import Any

from benchmarks.speed.pages import write_page
from benchmarks.speed.pool import KINDS

MEASURED = "speed/h200x2_pool.jsonl"
HEAD = """# The GPUs of a sweep

How much of the time of a sweep each GPU has a living rank, measured by `benchmarks/speed/pool.py` on two H200: LoRA and full runs of a 0.5B shape
with random weights, one sweep, one command. A rank has its GPUs from the moment the sweep gives them to it, or from its birth where that is later,
to its last write. What the driver reports is `utilization.gpu` of nvidia-smi, once a second, from the first of these moments to the last; loading
and saving count as time in which the GPU does little. Made by `benchmarks/speed/pool_page.py` from `results/speed/h200x2_pool.jsonl`.
"""


def of_last_sweep(path: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The points and the summary of the last sweep of the file."""
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    ends = [at for at, line in enumerate(lines) if line["line"] == "sweep"]
    begins = ends[-2] + 1 if len(ends) > 1 else 0
    return lines[begins : ends[-1]], lines[ends[-1]]


def row(point: dict[str, Any], first: float) -> str:
    """`first`: where the page counts from, in seconds since the epoch."""
    named, gpus = " ".join(point["varied"]).removeprefix("recipe="), ", ".join(point["gpus"])
    times = (point["had"] - first, point["exited"] - first, point["exited"] - point["had"])
    steps, good = f"{point['steps']} of {point['of']}", "yes" if point["right"] else "no"
    return f"| {point['point']} | {named} | {gpus} | {' | '.join(f'{seconds:.1f}' for seconds in times)} | {steps} | {good} |"


def page(results: Path) -> str:
    points, sweep = of_last_sweep(results / MEASURED)
    first = min(point["had"] for point in points)
    shares = [f"| {gpu} | {share:.1%} | {sweep['driver_mean_percent'][gpu]} % |" for gpu, share in sweep["share_with_a_rank"].items()]
    rows = [row(point, first) for point in sorted(points, key=lambda point: point["had"]) if point["exited"] is not None]
    counted = f"{sweep['points']} runs in {sweep['makespan']:.1f} s, {sweep['right']} of them right"
    cut = [point for point in points if point["state"] != "finished"]
    planned = sum(kind.points for kind in KINDS)
    left = f"{len(cut)} were asked to stop when the time on the machine was over, and {planned - len(points)} of the {planned} had not begun. "
    beside = "Other processes used both GPUs at the same time, so runs took longer than alone, and the driver's mean is not this sweep's alone."
    return "\n".join(
        [
            HEAD,
            f"{counted}: finished, every rank with 0, all steps, finite losses, a final model.",
            f"{left if cut else ''}{beside}",
            "",
            "| GPU | has a living rank | mean of the driver |",
            "|---|---|---|",
            *shares,
            "",
            "| point | run | GPUs | had them at (s) | left at (s) | for (s) | steps | right |",
            "|---|---|---|---|---|---|---|---|",
            *rows,
            "",
        ]
    )


if __name__ == "__main__":
    raise SystemExit(write_page(__doc__, page))
