"""Tables and one picture of measured cells: predicted against measured memory.

python -m benchmarks.stages.report benchmarks/results/stages/h200{,x2}_{sft,stages,stages2}.jsonl benchmarks/results/stages/h200{,x2}_stages3.jsonl \\
    --page docs/reference/measured.md --picture docs/images/measured.png
"""

import argparse
import json
import statistics
from pathlib import Path

GIB = 2**30


def records(paths: list[Path]) -> list[dict]:
    found = [json.loads(line) for path in paths for line in path.read_text().splitlines()]
    return [record for record in found if record["exit_code"] == 0]


def allocated(record: dict) -> int:
    return max(rank["allocated"] for rank in record["measured"])


def error(record: dict) -> float:
    """Signed relative error of the predicted peak of allocated memory."""
    return (record["predicted"]["allocated"] - allocated(record)) / allocated(record)


def row(record: dict) -> str:
    rate = f"{record['tokens_per_second']:,.0f}" + ("" if record["concurrent"] == 1 else " *")
    cell = f"{record['model']} | {record['regime']} | {record['sharding']} | {record['gpus']}"
    return f"| {cell} | {outcome(record)} | {rate} | {record.get('note', '')} |"


def stage_tables(found: list[dict]) -> list[str]:
    """One table a stage, of benchmarks/stages/stage_cells.py."""
    if not found:
        return []
    errors = [abs(error(record)) for record in found]
    head = [
        "## Stages",
        "",
        f"{len(found)} cells of `benchmarks/stages/stage_cells.py`: real data, lengths in the commands of the raw results. "
        f"Peak of allocated memory: median error {100 * statistics.median(errors):.2f} %, worst {100 * max(errors):.1f} %.",
        "",
    ]
    return head + [line for stage in dict.fromkeys(record["stage"] for record in found) for line in stage_table(stage, found)]


def stage_table(stage: str, found: list[dict]) -> list[str]:
    head = "| regime | sharding | GPUs | loss, first 5 → last 5 | predicted GiB | measured GiB | error | error of each phase |"
    return [f"### {stage}", "", head, "|---|---|---|---|---|---|---|---|", *(stage_row(record) for record in found if record["stage"] == stage), ""]


def stage_row(record: dict) -> str:
    measured = {name: max(rank["phases"].get(name, 0) for rank in record["measured"]) for name in record["predicted"]["phases"]}
    off = {name: size / measured[name] - 1 for name, size in record["predicted"]["phases"].items() if measured[name]}
    phases = ", ".join(f"{name} {100 * share:+.1f} %" for name, share in off.items())
    return f"| {record['regime']} | {record['sharding']} | {record['gpus']} | {outcome(record)} | {phases} |"


def outcome(record: dict) -> str:
    """Losses, predicted and measured GiB, and the error."""
    losses = f"{statistics.mean(record['first_losses']):.2f} → {statistics.mean(record['last_losses']):.2f}"
    return f"{losses} | {record['predicted']['allocated'] / GIB:.2f} | {allocated(record) / GIB:.2f} | {100 * error(record):+.1f} %"


def page(found: list[dict]) -> str:
    stages, found = [record for record in found if "stage" in record], [record for record in found if "stage" not in record]
    errors = [abs(error(record)) for record in found if "note" not in record]
    learned = [record for record in found if not record["lr_zero"]]
    idle = [record for record in found if record["lr_zero"]]
    surroundings = found[0]["surroundings"]
    gpu, versions = surroundings["gpus"][0].split(",")[0], ", ".join(f"{name} {number}" for name, number in surroundings["versions"].items())
    head = [
        "# Measured cells",
        "",
        f"Made by `benchmarks/stages/report.py` from `benchmarks/results/`. {len(found)} cells on {gpu}, {surroundings['date']}, {versions}.",
        "Random weights of the real shapes, byte-level tokenizer, alpaca data, 1,024 tokens x micro-batch 4 a GPU, gradient checkpointing, 20 steps.",
        "",
        "Predicted against measured peak of allocated memory, cells with a note left out: "
        f"median error {100 * statistics.median(errors):.2f} %, worst {100 * max(errors):.1f} %.",
        f"Learned (last 5 losses at least 10 % below the first 5): {sum(record['learned'] for record in learned)} of {len(learned)}; "
        f"with learning rate 0: {sum(record['learned'] for record in idle)} of {len(idle)}.",
        "",
        "| model | regime | sharding | GPUs | loss, first 5 → last 5 | predicted GiB | measured GiB | error | tokens/s | note |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    note = "\\* measured while other cells ran on the same machine (one a GPU on one GPU, two or three on the same GPUs on two): no figure of speed."
    return "\n".join([*head, *map(row, found), "", note, "", "![predicted against measured](../images/measured.png)", "", *stage_tables(stages)])


def draw(found: list[dict], picture: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 3.6), dpi=120)
    for sharding, colour in (("ddp", "#08519c"), ("zero2", "#3182bd"), ("zero3", "#d94801"), ("fsdp2", "#74c476")):
        members = [record for record in found if record["sharding"] == sharding and "note" not in record]
        axes.scatter([allocated(record) / GIB for record in members], [100 * error(record) for record in members], label=sharding, color=colour, s=22)
    axes.axhline(0, color="grey", linewidth=0.8)
    axes.set(xlabel="measured peak, GiB", ylabel="error of the prediction, %")
    axes.legend(ncols=4)
    figure.tight_layout()
    figure.savefig(picture)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, nargs="+")
    parser.add_argument("--page", type=Path, required=True)
    parser.add_argument("--picture", type=Path, required=True)
    arguments = parser.parse_args()
    found = records(arguments.results)
    arguments.page.write_text(page(found), encoding="utf-8")
    draw(found, arguments.picture)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
