"""The page of the speed measurements, from their raw lines.

    python -m benchmarks.speed.tables --results benchmarks/results --page docs/reference/measured_speed.md

A cell and variant that was measured several times shows every figure, the newest last.
"""

import json
from pathlib import Path
from typing import Any

from benchmarks.speed import fit, spared
from benchmarks.speed.cells import CELLS, OPTED, Cell
from benchmarks.speed.pages import write_page
from benchmarks.speed.scaling_tables import scaling_lines

FILE, PEERS = "speed/h200_speed.jsonl", "speed/h200_peers.jsonl"
SPARED, FITTED = "speed/h200_spared.jsonl", "speed/h200_fit_new.jsonl"
VARIANTS = {
    "default": "default: model, data, regime and `training.effective_batch` are stated, and nothing more",
    "by-hand": "by hand: the fastest keys without fused kernels (no checkpointing, packing, liger's loss, four workers)",
    "kernels": "`training.kernels=fused` by hand, four workers",
    "kernels-packed": "the same, packed",
    "kernels-recomputed": "the same with checkpointing",
    "fp8": "fp8: the default with `training.fp8=true`",
    "trl": "TRL: its SFTTrainer with PEFT as it comes (activations checkpointed, rows padded), bf16 weights, sdpa; nothing of regimen trains",
    "trl-advised": "TRL, advised: the same with its liger kernels and without checkpointing (`benchmarks/speed/peers.py`)",
    "dequantised-once": "dequantised once: the default with `regime.dequantised=true`",
}
HEAD = """# Measured speed

Made by `benchmarks/speed/tables.py` from `benchmarks/results/{file}`, whose lines hold the command of each run, and for other trainers from
`speed/h200_peers.jsonl`. {count} runs on {gpus},
{dates}, {versions}.
Tokens a second count no padding; the figure is the median over the steps after the warm-up. Random weights of the real shapes, byte-level
tokenizer. Where a variant was measured several times, all figures stand here, the newest last: the note of each line says at which commit.
"""


def rows_of(records: list[dict[str, Any]]) -> list[str]:
    lines = ["| cell | variant | tokens/s | step, ms | allocated, GiB | predicted, GiB |", "|---|---|---|---|---|---|"]
    for cell in CELLS:
        for variant, meaning in VARIANTS.items():
            found = [record for record in records if record["cell"] == f"{cell.name}/{variant}"]
            if found:
                lines.append(f"| {named(cell)} | {meaning.split(':')[0]} | {figures(found, 'tokens_per_second', 1, ',.0f')} | {columns(found)} |")
    return lines


def named(cell: Cell) -> str:
    lengths = "lengths as in practice, at most" if cell.mixed else "full rows of"
    return f"{cell.name}: {cell.rows} samples a step, {lengths} {cell.cutoff}"


def columns(found: list[dict[str, Any]]) -> str:
    return " | ".join(figures(found, key, factor, form) for key, factor, form in (("step_seconds", 1000, ".0f"), *MEMORY))


def effects(records: list[dict[str, Any]]) -> list[str]:
    """What a variant that changes numbers does to the losses: beside those of the newest default run of its cell, of the same data and seed."""
    lines = []
    for name, variant in OPTED:
        runs = {each: [record for record in records if record["cell"] == f"{name}/{each}"] for each in ("default", variant)}
        if all(runs.values()):
            plain, changed = (found[-1]["losses"] for found in runs.values())
            largest = max(abs(loss / other - 1) for loss, other in zip(changed, plain, strict=True))
            lines.append(
                f"{name}, {variant}: over {len(plain)} steps each loss is within {largest:.2%} of that of the default; the last ones are "
                f"{changed[-1]:.4f} and {plain[-1]:.4f}."
            )
    return lines


MEMORY = (("allocated_gib", 1, ".2f"), ("predicted_gib", 1, ".2f"))


def figures(found: list[dict[str, Any]], key: str, factor: float, form: str) -> str:
    return ", ".join(dict.fromkeys(format(factor * record[key], form) for record in found if key in record)) or "–"


def page(results: Path) -> str:
    there = [path for path in (results / FILE, results / PEERS) if path.exists()]
    records = [record for path in there for record in read(path) if record["exit_code"] == 0]
    facts = [record["surroundings"] for record in records]
    dates = ", ".join(sorted({fact["date"] for fact in facts}))
    gpus = ", ".join(sorted({gpu.split(",")[0] for fact in facts for gpu in fact["gpus"]}))
    versions = ", ".join(f"{name} {number}" for name, number in facts[-1]["versions"].items())
    head = HEAD.format(file=FILE, count=len(records), gpus=f"one {gpus}", dates=dates, versions=versions)
    measured = {record["cell"].split("/")[1] for record in records}
    meanings = [f"- {meaning}" for variant, meaning in VARIANTS.items() if variant in measured]
    mixed = (
        "The cell of mixed lengths waits for the host, whose speed changed between the machines and within a run: its quiet steps take 41 to 65 ms,\n"
        "and others up to 170. Its prediction is for eight samples of full length. Where a prediction is far above what was allocated, the plain\n"
        "kernels were counted still. 1b-full computes in bf16_amp by default, and in bf16 in its other variants."
    )
    changed = effects(records)
    more = [*spared_section(results / SPARED), *fit_section(results / FITTED), *scaling_lines(results)]
    return "\n".join([head, *rows_of(records), "", *meanings, "", *changed, *([""] if changed else []), mixed, *more, ""])


def spared_section(path: Path) -> list[str]:
    """Each attempt to spare the host, beside the run as it is."""
    if not path.exists():
        return []
    text = (
        f"From `results/{SPARED}`, made by `benchmarks/speed/spared.py`: 1b-lora-mixed as it is, and with one thing done otherwise, one run\n"
        "after another and all of them again in the next round."
    )
    return ["", "## What spares the host", "", text, "", spared.report(read(path))]


def fit_section(path: Path) -> list[str]:
    """Of each job with more to choose, how near to the fastest combination the chosen one is."""
    if not path.exists():
        return []
    lines = read(path)
    text = (
        f"From `results/{FITTED}`, made by `benchmarks/speed/fit.py --new`: every permitted combination of what a job leaves open (micro-batch,\n"
        "checkpointing, of a number of layers too, kernels, loss), one at a time. `results/speed/h200_fit.jsonl` has six more jobs, of micro-batch\n"
        "and checkpointing alone."
    )
    rows = [
        "| job | combinations | chosen | tokens/s | fastest | tokens/s | ratio |",
        "|---|---|---|---|---|---|---|",
        *map(row_of_job, fit.by_job(lines)),
    ]
    return ["", "## What training.fit chooses", "", text, "", *rows]


def row_of_job(measured: list[dict[str, Any]]) -> str:
    """`measured`: the combinations of one job, the fastest first."""
    chosen, best = next((line for line in measured if line["chosen"]), None), measured[0]
    job, forms = best["job"], [line["name"].split("/")[1] if line else "not measured" for line in (chosen, best)]
    rates = [f"{line['tokens_per_second']:,.0f}" if line else "–" for line in (chosen, best)]
    ratio = f"{chosen['tokens_per_second'] / best['tokens_per_second']:.3f}" if chosen else "–"
    return f"| {job} | {len(measured)} | {forms[0]} | {rates[0]} | {forms[1]} | {rates[1]} | {ratio} |"


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def main() -> int:
    return write_page(__doc__, page)


if __name__ == "__main__":
    raise SystemExit(main())
