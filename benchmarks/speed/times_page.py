"""The page of predicted times, from the raw lines.

python -m benchmarks.speed.times_page --results benchmarks/results --page docs/concepts/predicted_time.md
"""

import statistics
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.speed.pages import write_page
from benchmarks.speed.rates import as_run, timed_runs
from benchmarks.speed.scaling_tables import two_gpu_lines
from benchmarks.speed.times import error_of, read
from benchmarks.speed.ways import AS_IT_IS
from conf.schema import Run
from launcher.facts.model import ModelFacts, model_facts
from launcher.timing.launches import host_work
from launcher.timing.step import step_time
from launcher.timing.work import work_of

FITTED, PREDICTED, MEASURED = "speed/h200_fit.jsonl", "speed/h200_times_predicted.jsonl", "speed/h200_times.jsonl"
NORMS, PROFILES = "speed/h200_times_norms.jsonl", "speed/h200_step_profiles.jsonl"
AGAIN, HOSTS = "speed/h200_times_again.jsonl", "speed/h200_times_hosts.jsonl"
HOSTS_PREDICTED = "speed/h200_times_hosts_predicted.jsonl"
SMALL_PREDICTED, SMALL = "speed/h200_times_small_predicted.jsonl", "speed/h200_times_small.jsonl"
HEAD = """# Predicted time

`regimen plan` says how long a step takes, how many tokens a second that is, and how long all steps take. `--explain` lists the terms, `--json`
has them under `expected.step`. Made by `benchmarks/speed/times_page.py`.

## What is counted

- products: two operations an element and token: forward, again where layers are computed again, gradients of inputs and of weights; each matrix
  passes through memory once, which is most of an adapter's time
- attention: two products forward and five back of the causal half, by the measured rate of its kernel, the width of a head and the length
- element-wise kernels, loss, casts, around adapters: bytes that each operation reads and writes, plain or fused; of stages that compare answers
  what TRL does with whole logits beside the loss
- dequantising: packed weights read and 16-bit ones written, in each pass
- waiting for the host, as far as the GPU is done earlier: kernels that a micro-batch starts, functions of autograd that are written in Python,
  matrices that bitsandbytes dequantises, layers computed again, and the modules over which the Trainer and PEFT walk, at a measured time each
  (`benchmarks/speed/host_rates.py`), in proportion to `node.python_turn`
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
layers were not traced, 30 % where several GPUs work, 45 % where the GPU waits for a host whose speed is stated, 50 % on other cards, on several
nodes and in stages that compare answers, and twice or half with offloading and where the GPU waits for a host whose speed is not stated: the largest
that applies. `regimen doctor` measures one turn of a loop in Python: `node.python_turn=58` makes a plan count with it.
The runs below have the ranges that were stated when they were
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
        f"Two rates are fitted to the {len(errors)} combinations of `results/{FITTED}` (`benchmarks/speed/rates.py`):",
        f"median {statistics.median(errors):.1%}, worst {max(errors):.1%} off; of the {len(busy)} whose GPU does not wait for the host,",
        f"median {statistics.median(busy):.1%}, worst {max(busy):.1%}. Their hosts were starting other runs, which is not counted.",
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
        "short, as they were made then. These steps wait for the host.",
        "",
        "| cell | " + " | ".join(f"{way}, ms" for way in ways) + " |",
        "|---|" + "---|" * len(ways),
        *(
            f"| {cell[3:]} | " + " | ".join(", ".join(f"{1e3 * line['step']:,.0f}" for line in found[cell, way]) for way in ways) + " |"
            for cell in cells
        ),
    ]


def profile_lines(results: Path) -> list[str]:
    """What steps spend their time on, beside what the present formulas count."""
    return [
        "",
        "## What the host does",
        "",
        f"Ten of these cells were looked into, one at a time on a host of 16 processors (`results/{PROFILES}`): how long the GPU works,",
        "how many kernels, copies and fills a step starts, and how long the host is busy with the forward and the backward pass. Steps with fused",
        "kernels wait for Python: about 0.1 ms for each function of autograd that is written in it, 0.1 ms for each matrix that bitsandbytes",
        "dequantises (three kernels, where two were counted), and some ms for each layer that `torch.utils.checkpoint` computes again. With plain",
        "kernels, PEFT's and the Trainer's walks over all modules take up to 50 ms a step. What the formulas take the host to need comes from these",
        "runs. The same job took 131 to 185 ms a step in the first four sessions, on hosts of the same kind.",
        "",
        "| cell | step, ms | GPU works, ms | kernels started | counted now | forward, ms of the host | backward |",
        "|---|---|---|---|---|---|---|",
        *(profile_row(line) for line in read(results / PROFILES) if "gpu" in line),
    ]


def profile_row(line: dict[str, Any]) -> str:
    gpu, host = line["gpu"], line["host_seconds"]
    started, counted = gpu["kernels"] + gpu["copies"], counted_kernels(line)
    seconds = (line["step"], gpu["busy"], host["compute_loss"], host["backward"])
    step, busy, forward, backward = (f"{1e3 * each:,.0f}" for each in seconds)
    return f"| {line['cell'][3:]} | {step} | {busy} | {started:,.0f} | {counted:,.0f} | {forward} | {backward} |"


def counted_kernels(line: dict[str, Any]) -> float:
    """Of a step, by the present formulas."""
    work = work_of(*run_of(line))
    return host_work(work).kernels * work.run.training.accumulation


def run_of(line: dict[str, Any]) -> tuple[Run, ModelFacts]:
    """Every sample is as long as data.cutoff: which data there are does not matter."""
    name = next(key.split("=")[1] for key in line["overrides"] if key.startswith("model="))
    run = as_run(tuple(line["overrides"]))
    return run, model_facts(run.model.architecture, name)


def small_lines(results: Path) -> list[str]:
    """Of small steps with adapters and of pairs, predicted after the profiles."""
    if not (results / SMALL).exists():
        return ["", f"18 more small cells were predicted by these formulas (`results/{SMALL_PREDICTED}`); they are not measured yet."]
    predicted = {line["cell"]: line["predicted"] for line in read(results / SMALL_PREDICTED)}
    lines = [{**line, "predicted": predicted[line["cell"]]} for line in read(results / SMALL) if "step" in line]
    fused, pairs = ([line for line in lines if part in line["cell"]] for part in ("/fused", "/dpo/"))
    others = [line for line in lines if line not in fused and line not in pairs]
    return [
        "",
        f"{len(lines)} of 18 small cells, drawn at random and predicted by these formulas before they were measured",
        f"(`results/{SMALL}`): {said(lines)}",
        f"With fused kernels, {len(fused)}: {said(fused)} Of `stage=dpo`, {len(pairs)}: {said(pairs)} The {len(others)} others: {said(others)}",
        "",
        "| cell | predicted, ms | measured, ms | off |",
        "|---|---|---|---|",
        *(row(line) for line in lines),
    ]


def again_lines(results: Path) -> list[str]:
    """Of every kind, predicted by what hosts of earlier sessions needed: as predicted, and by the present formulas at this host's speed."""
    lines = [line for line in read(results / AGAIN) if "step" in line]
    turn = statistics.median(1e3 * speeds["loop"] for line in lines for speeds in line["host_speeds"])
    present, date = [{**line, "predicted": at_turn(line, turn)} for line in lines], lines[-1]["surroundings"]["date"]
    return [
        "",
        f"{len(lines)} more cells of every kind, drawn by another seed and predicted before (`results/{AGAIN}`, {date}):",
        f"{said(lines)} That host was slower: where",
        "steps wait for it, they took one and a half times as long as in the sessions before. One turn of a loop in Python took",
        f"{turn:.0f} ns (median of the looks before and after each cell: about 35 ns in some seconds, 58 in others). By the present formulas, which",
        f"were fitted to these cells too, with `node.python_turn={turn:.0f}`:",
        said(present),
        "",
        "| cell | predicted, ms | measured, ms | off | present formulas, ms | off |",
        "|---|---|---|---|---|---|",
        *(f"{row(line)} {both(now)}" for line, now in zip(lines, present, strict=True)),
    ]


def host_lines(results: Path) -> list[str]:
    """By formulas that know the host's speed: without it, with what was measured right before each run, and with what was measured in its steps."""
    predicted = read(results / HOSTS_PREDICTED)
    if not (results / HOSTS).exists():
        return ["", f"{len(predicted)} cells more are predicted (`results/{HOSTS_PREDICTED}`); they are not measured yet."]
    lines = [line for line in read(results / HOSTS) if "step" in line]
    before = [{**line, "predicted": line["predicted_here"]} for line in lines]
    within = [{**line, "predicted": at_turn(line, statistics.median(line["python_turns"]))} for line in lines]
    busy = [line for line in before if "waits for the host" not in line["predicted"]["source"] and "/dpo/" not in line["cell"]]
    turns, date = sorted(line["python_turn"] for line in lines), lines[-1]["surroundings"]["date"]
    return [
        "",
        f"{len(lines)} of {len(predicted)} cells of every kind, by a third seed, predicted by the present formulas before they ran",
        f"(`results/{HOSTS}`, {date}), the first of the draw. One turn took {turns[0]:.0f} to {turns[-1]:.0f} ns,",
        f"{statistics.median(turns):.0f} in the median.",
        "",
        f"- host not stated: {said(lines)}",
        f"- `node.python_turn` as it was measured for half a second right before each run: {said(before)}",
        f"- as it was measured in the steps themselves, which no plan can know: {said(within)}",
        f"- the {len(busy)} of them whose GPU does not wait: {said(busy)}",
        "",
        "These times prove nothing of the prediction. Before the cells a test had started a run that trains apart from it. A time limit ended the",
        "test and not that run, so it very likely worked on the same GPU all the while: every cell took longer than predicted, and the cell that",
        "was drawn twice as much early and late. They are to be measured again.",
        "",
        "| cell | predicted, ms | measured, ms | off | turn before, ms | off | turn of its steps, ms | off |",
        "|---|---|---|---|---|---|---|---|",
        *(f"{row(line)} {both(one)} {both(other)}" for line, one, other in zip(lines, before, within, strict=True)),
    ]


def both(line: dict[str, Any]) -> str:
    return f"{line['predicted']['step'] * 1e3:,.0f} | {error_of(line):+.1%} |"


def at_turn(line: dict[str, Any], turn: float) -> dict[str, Any]:
    run, facts = run_of(line)
    return step_time(replace(run, node=replace(run.node, python_turn=turn)), facts).as_dict()


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
    of_one = (
        *fitted_lines(results),
        *cell_lines(results),
        *norms_lines(results),
        *profile_lines(results),
        *small_lines(results),
        *again_lines(results),
        *host_lines(results),
    )
    return "\n".join([HEAD, *of_one, *two_gpu_lines(results), ""])


def main() -> int:
    return write_page(__doc__, page)


if __name__ == "__main__":
    raise SystemExit(main())
