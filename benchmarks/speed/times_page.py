"""The page of predicted times, from the raw lines.

python -m benchmarks.speed.times_page --results benchmarks/results --page docs/concepts/predicted_time.md
"""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.speed.pages import write_page
from benchmarks.speed.rates import timed_runs
from benchmarks.speed.scaling_tables import two_gpu_lines
from benchmarks.speed.times import error_of, read
from benchmarks.speed.ways import AS_IT_IS
from launcher.timing.step import step_time

FITTED, PREDICTED, MEASURED = "speed/h200_fit.jsonl", "speed/h200_times_predicted.jsonl", "speed/h200_times.jsonl"
NORMS = "speed/h200_times_norms.jsonl"
HEAD = """# Predicted time

`regimen plan` says how long a step takes, how many tokens a second that is, and how long all steps take. `--explain` lists the terms, `--json`
has them under `expected.step`. Made by `benchmarks/speed/times_page.py`.

## What is counted

- products: two operations an element and token: forward, again where layers are computed again, gradients of inputs and of weights; each matrix
  passes through memory once, which is most of an adapter's time
- attention: two products forward and five back of the causal half, by the measured rate of its kernel, the width of a head and the length
- element-wise kernels, loss, casts, around adapters: bytes that each operation reads and writes, plain or fused
- dequantising: packed weights read and 16-bit ones written, in each pass
- waiting for the host: kernels that a micro-batch starts, by `training.kernels`, adapters and layers computed again, at a fixed time each, as far
  as the GPU is done earlier
- optimizer: gradients, weights and states, read and written; with offloading by the CPU, at an assumed rate of host memory
- gathering weights, reducing gradients: bytes of a rank in a ring, at the slower of a share of the link inside of a node (`node.link`, else the
  card's data sheet) and `node.network` between nodes; nothing is taken to overlap
- sharding engine: what DeepSpeed does around each tensor that it puts into a bucket; what its Python does around weights that ZeRO-3 gathers counts
  to the host, which works while the GPU does

Not in it: the start of a run, evaluations, checkpoints, and waiting for data. Every sample counts as long as `data.cutoff`, so shorter ones end
earlier.

## Where it is known

Rates were measured on one H200. On other cards they are those times what the data sheet says of operations and memory, and the plan says `not
measured on this card`. The plan states a range with each time, as a share to both sides: 10 % on one H200, 25 % for mixtures and families whose
layers were not traced, 30 % where several GPUs work, 45 % where the GPU waits for the host, 50 % on other cards, on several nodes and in stages
that compare answers, and twice or half with offloading: the largest that applies. The runs below have the ranges that were stated when they were
predicted: 10 % in stages that compare answers, and 30 % where the GPU waits. The plan says `not predicted`, with the reason, on CPUs and cards
without a row, on several nodes without `node.network`, for stages that write their answers (ppo, grpo), `training.precision=fp32`,
`training.attention=eager`, `training.fp8`,
`training.deterministic`, 8 and 2 bits, DoRA, and optimizers that project, orthogonalise or page.

Two nodes and more, offloading, and cards other than the H200 were never timed. Of memory benchmarks (`results/memory`, `results/stages`) the
steps are no measure of time: most ran side by side on one GPU.

## How good it is
"""


def fitted_lines(results: Path) -> list[str]:
    runs = [(step_time(run.run, run.facts), run.seconds) for run in timed_runs(results / FITTED)]
    errors = [abs(found.seconds / seconds - 1) for found, seconds in runs]
    busy = [abs(found.seconds / seconds - 1) for found, seconds in runs if "waits for the host" not in found.source]
    return [
        f"Four rates are fitted to the {len(errors)} combinations of `results/{FITTED}` (`benchmarks/speed/rates.py`):",
        f"median {statistics.median(errors):.1%}, worst {max(errors):.1%} off; of the {len(busy)} whose GPU does not wait for the host,",
        f"median {statistics.median(busy):.1%}, worst {max(busy):.1%}. Their hosts were starting other runs.",
        "In all six jobs the first in the order of the prediction is the fastest. The 12 runs of `results/speed/h200_speed.jsonl` with rows of full",
        "length (8B and 1B) are met within 5 % (`tests/launcher/timing/test_step.py`). Of them only the rate of dequantising was taken, but they",
        "were in sight when the form of the terms was chosen, so the cells below are the test.",
        "",
    ]


def cell_lines(results: Path) -> list[str]:
    predicted = read(results / PREDICTED)
    if not (results / MEASURED).exists():
        return [f"{len(predicted)} cells were drawn at random (`results/{PREDICTED}`); they are not measured yet."]
    lines = sorted((line for line in read(results / MEASURED) if "step" in line), key=lambda line: str(line["cell"]))
    facts = lines[-1]["surroundings"]
    waits = [line for line in lines if "waits for the host" in line["predicted"]["source"]]
    others = [line for line in lines if line not in waits]
    return [
        f"{len(lines)} of {len(predicted)} cells that were drawn at random were measured, one at a time on a GPU, after their prediction had been",
        f"written down (`results/{MEASURED}`, {facts['date']}, {facts['gpus'][0].split(',')[0]}){first(lines, predicted)}:",
        f"{said(lines)} {sum('fused' in line['cell'] for line in lines)} of them have fused kernels.",
        f"Of the {len(others)} whose GPU does not wait for the host: {said(others)}",
        f"Of the {len(waits)} others: {said(waits)}",
        "",
        "| cell: model, regime, stage, micro-batch x length x accumulation, kernels | predicted, ms | measured, ms | off |",
        "|---|---|---|---|",
        *(row(line) for line in lines),
    ]


def norms_lines(results: Path) -> list[str]:
    """Small cells with fused kernels once more, by the kernel of their norms."""
    if not (results / NORMS).exists():
        return []
    lines = read(results / NORMS)
    ways, cells = (list(dict.fromkeys(str(line[key]) for line in lines)) for key in ("way", "cell"))
    found = {(cell, way): [line for line in lines if (line["cell"], line["way"]) == (cell, way)] for cell in cells for way in ways}
    errors, date = [error_of(line) for line in lines if line["way"] == AS_IT_IS], lines[-1]["surroundings"]["date"]
    short = f"{-max(errors):.0%} to {-min(errors):.0%} too"
    return [
        "",
        f"Three of them were measured again on a host of 16 processors (`results/{NORMS}`, {date}), with torch's kernel for the",
        f"norms under adapters, as it is, and with liger's: torch's is not what slows them. As they are, the predictions are {short}",
        "short. These steps wait for the host.",
        "",
        "| cell | " + " | ".join(f"{way}, ms" for way in ways) + " |",
        "|---|" + "---|" * len(ways),
        *(
            f"| {cell[3:]} | " + " | ".join(", ".join(f"{1e3 * line['step']:,.0f}" for line in found[cell, way]) for way in ways) + " |"
            for cell in cells
        ),
    ]


def first(lines: Sequence[dict[str, Any]], predicted: Sequence[dict[str, Any]]) -> str:
    """What is to be said of which cells these are; `lines` in the order of the draw."""
    drawn = [line["cell"] for line in predicted[: len(lines)]]
    return ", the first of the draw" if drawn == [line["cell"] for line in lines] and len(lines) < len(predicted) else ""


def row(line: dict[str, Any]) -> str:
    return f"| {line['cell'][3:]} | {line['predicted']['step'] * 1e3:,.0f} | {line['step'] * 1e3:,.0f} | {error_of(line):+.1%} |"


def said(lines: Sequence[dict[str, Any]]) -> str:
    errors = [abs(error_of(line)) for line in lines]
    inside = sum(line["predicted"]["low"] <= line["step"] <= line["predicted"]["high"] for line in lines)
    return f"median {statistics.median(errors):.1%}, worst {max(errors):.1%} off, {inside} inside of the stated range." if lines else "none."


def page(results: Path) -> str:
    return "\n".join([HEAD, *fitted_lines(results), *cell_lines(results), *norms_lines(results), *two_gpu_lines(results), ""])


def main() -> int:
    return write_page(__doc__, page)


if __name__ == "__main__":
    raise SystemExit(main())
