"""The page of cells of which only the test counts: what was predicted before they were measured. Nothing is predicted anew: it is made at once.

python -m benchmarks.memory.before --results benchmarks/results/memory --page docs/reference/measured_drawn.md
"""

import argparse
import json
import statistics
from pathlib import Path

from benchmarks.memory.cells import GIB
from benchmarks.memory.measured import errors, failed, records

SETS = {
    "h200_families.jsonl": "Families without a table, one H200",
    "h200_fused_layers.jsonl": "Fused kernels, most with a few layers computed again, one H200",
    "h200x2_stages_on_two.jsonl": "Every stage, sharding and regime, two H200",
}
# What was fixed after their prediction had been committed and before they ran; the run itself predicted by the fixed formulas before its first step
SINCE = {
    **dict.fromkeys(("qlora4/flint/1x1024", "qlora4/ernie4_5_moe/2x1024"), "experts were counted in 16 bits"),
    **dict.fromkeys(("full_amp-kept/nanochat/1x1024", "qlora4-kept/nanochat/2x1024"), "squares were traced in 16 bits"),
}
HEAD = """# Measured cells that were drawn

Made by `benchmarks/memory/before.py` from `benchmarks/results/memory`. Cells were drawn by a seed and predicted before they were
measured ([families.md](../concepts/families.md), `families.py`, `fused.py` and `stages_on_two.py` of `benchmarks/memory`). Six steps of
`regimen train` a cell, random weights, beside other work on the same GPUs. Errors are those of the committed prediction: of the peak that torch
allocated, and of what the driver counted.
"""


def section(path: Path, title: str) -> list[str]:
    rows = [(record, errors(record["predicted"], record["measured"])) for record in records(path)]
    sizes = [abs(found["allocated"][0]) for _, found in rows]
    driver = [abs(found["nvidia-smi"][0]) for _, found in rows]
    predicted = [json.loads(line)["cell"] for line in path.with_name(f"{path.stem}_predicted.jsonl").read_text().splitlines()]
    names, ended = {record["cell"] for record, _ in rows}, set(failed(path))
    unmeasured = [name for name in predicted if name not in names | ended]
    return [
        f"## {title}",
        "",
        f"{len(rows)} cells: allocated {statistics.median(sizes):.2%} in the median, {max(sizes):.1%} at worst; "
        f"nvidia-smi {statistics.median(driver):.1%} in the median, {max(driver):.1%} at worst.",
        *([f"Ended with an error: {', '.join(sorted(ended))}."] if ended else []),
        *([f"Predicted and not measured: {', '.join(unmeasured)}."] if unmeasured else []),
        *(since_line(record) for record, _ in rows if record["cell"] in SINCE),
        "",
        "| cell | allocated GiB | error | nvidia-smi | stated |",
        "|---|---|---|---|---|",
        *(line(record, found) for record, found in sorted(rows, key=lambda row: str(row[0]["cell"]))),
        "",
    ]


def since_line(record: dict) -> str:
    there = record["predicted_there"]["allocated"] / max(rank["allocated"] for rank in record["measured"]) - 1
    return f"{record['cell']}: when its prediction was committed, {SINCE[record['cell']]}; before its first step the run itself was {there:+.2%} off."


def line(record: dict, found: dict[str, list[float]]) -> str:
    size = max(rank["allocated"] for rank in record["measured"]) / GIB
    stated = record["predicted"]["uncertainty"]["share"]
    return f"| {record['cell']} | {size:.2f} | {found['allocated'][0]:+.2%} | {found['nvidia-smi'][0]:+.1%} | ±{stated:.1%} |"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--page", type=Path, required=True)
    arguments = parser.parse_args()
    found = [text for name, title in SETS.items() for text in section(arguments.results / name, title)]
    arguments.page.write_text("\n".join([HEAD, *found]), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
