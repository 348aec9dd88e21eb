"""The page of the memory measurements: what was predicted before, what was measured, and what the present formulas say.

    python -m benchmarks.memory.tables --results benchmarks/results --page docs/reference/measured_memory.md

Takes whatever of the sets is there. What the present formulas say was worked out by calibration.py, cell by cell (memory/calibration.jsonl).
"""

import argparse
import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.memory.calibration import Line, read_lines
from benchmarks.memory.cells import GIB
from benchmarks.memory.measured import MENDED, Errors, errors, failed, records

FILES = {  # of a set on so many GPUs
    ("chosen", 1): "memory/h200_chosen.jsonl",
    ("chosen", 2): "memory/h200x2_chosen.jsonl",
    ("from_files", 1): "memory/h200_from_files.jsonl",
    ("from_files", 2): "memory/h200x2_from_files.jsonl",
    ("variants", 1): "memory/h200_variants.jsonl",
    ("fixed", 1): "memory/h200_fixed.jsonl",
    ("drawn", 1): "memory/h200_drawn.jsonl",
    ("drawn_again", 1): "memory/h200_drawn_again.jsonl",
    ("fused", 1): "memory/h200_fused.jsonl",
    ("fused_again", 1): "memory/h200_fused_again.jsonl",
    ("drawn_on_two", 2): "memory/h200x2_drawn.jsonl",
    ("drawn_on_two_again", 2): "memory/h200x2_drawn_again.jsonl",
    ("mixtures", 1): "memory/h200_mixtures.jsonl",
    ("mixtures", 2): "memory/h200x2_mixtures.jsonl",
    ("families", 1): "memory/h200_families.jsonl",
    ("fused_layers", 1): "memory/h200_fused_layers.jsonl",
    ("stages_on_two", 2): "memory/h200x2_stages_on_two.jsonl",
}
FIGURES = ("allocated", "phases", "nvidia-smi", "host")
MEANINGS = {
    "allocated": "torch's peak on the fullest GPU",
    "phases": "the same of load, forward, backward, optimizer step and save, each",
    "nvidia-smi": "what the driver counts for the fullest rank; where it did not tell, or too late, what torch reserved and the context as predicted",
    "host": "anonymous and shared memory of all ranks of the node; the first set measured resident memory, files included",
}


@dataclass(frozen=True)
class Row:
    cell: str
    measured: int  # bytes allocated
    before: Errors  # as predicted before it was measured
    now: Errors  # empty where the cell would be refused today, or runs with a mended trainer


def rows_of(path: Path, lines: Mapping[tuple[str, str], Line]) -> Iterator[Row]:
    """One for every cell that ran to its end."""
    for record in records(path):
        ranks, line = record["measured"], lines.get((path.name, record["cell"]))
        now = errors_now(line) if line else {}
        yield Row(record["cell"], max(rank["allocated"] for rank in ranks), errors(record["predicted"], ranks), now)


def errors_now(line: Line) -> Errors:
    sizes = {figure: [line.sizes[figure].error] for figure in FIGURES if figure in line.sizes}
    return {**sizes, **({"phases": line.phases} if line.phases else {})}


def summary(title: str, rows: list[Row], when: str) -> list[str]:
    """One line a figure, of those that were measured."""
    lines = []
    for figure in FIGURES:
        found = [(abs(error), row.cell) for row in rows for error in (row.before if when == "before" else row.now).get(figure, [])]
        if found:
            worst, cell = max(found)
            lines.append(f"| {title} | {figure} | {len(found)} | {statistics.median(size for size, _ in found):.2%} | {worst:.1%} | {cell} |")
    return lines


def cell_line(row: Row) -> str:
    shown = [row.before["allocated"], *(row.now.get(figure, []) for figure in FIGURES)]
    return f"| {row.cell} | {row.measured / GIB:.2f} | " + " | ".join(largest(found) for found in shown) + " |"


def largest(found: list[float]) -> str:
    return f"{max(found, key=abs):+.1%}" if found else ""


def page(sets: dict[tuple[str, int], list[Row]], surroundings: dict, missing: list[str]) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in surroundings["versions"].items())
    names = {(which, gpus): f"{which} set, {'one GPU' if gpus == 1 else 'two GPUs'}" for which, gpus in sets}
    refused = sorted(row.cell for rows in sets.values() for row in rows if not row.now and row.cell not in MENDED)
    head = [
        "# Measured memory",
        "",
        f"Made by `benchmarks/memory/tables.py` from `benchmarks/results/`. NVIDIA H200, {surroundings['date']}, {versions}.",
        "Six steps of `regimen train` a cell, random weights of published shapes (`_cut`: fewer layers), cells side by side on a GPU.",
        "`As predicted before` is the test: what was committed before the cell was measured (`*_predicted.jsonl`), and copied into its record. The",
        "formulas were mended after each set, so that `present formulas` have seen it.",
        *([f"Did not run to their end: {', '.join(missing)}."] if missing else []),
        *([f"Would be refused today, so that the present formulas say nothing of them: {', '.join(refused)}."] if refused else []),
        f"Nor of these, whose trainer was corrected since: {', '.join(f'{cell} ({why})' for cell, why in MENDED.items())}.",
        "",
        *(f"- {figure}: {meaning}." for figure, meaning in MEANINGS.items()),
        "",
        "| | figure | values | median error | worst | worst cell |",
        "|---|---|---|---|---|---|",
    ]
    before = [line for key, rows in sets.items() for line in summary(f"{names[key]}, as predicted before", rows, "before")]
    now = [line for key, rows in sets.items() for line in summary(f"{names[key]}, present formulas", rows, "now")]
    table = [
        "",
        "GiB allocated at the peak, and the errors of what was predicted of it before and of the present formulas; of the phases the largest:",
        "",
        "| cell | GiB | before | now | phases | nvidia-smi | host |",
        "|---|---|---|---|---|---|---|",
    ]
    every = sorted((row for rows in sets.values() for row in rows), key=lambda row: row.cell)
    return "\n".join([*head, *before, *now, *table, *map(cell_line, every), ""])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--page", type=Path, required=True)
    arguments = parser.parse_args()
    lines = {(line.results, line.cell): line for line in read_lines(arguments.results / "memory" / "calibration.jsonl")}
    paths = {key: arguments.results / name for key, name in FILES.items() if (arguments.results / name).is_file()}
    sets = {key: list(rows_of(path, lines)) for key, path in paths.items()}
    last = records(list(paths.values())[-1])[-1]["surroundings"]
    missing = [name for path in paths.values() for name in failed(path)]
    arguments.page.write_text(page(sets, last, missing), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
