"""The page of the memory measurements: what was predicted before, what was measured, and what the present formulas say.

cd benchmarks/results; python ../memory_tables.py --one h200_memory.jsonl --two h200x2_memory.jsonl --page docs/measured_memory.md
"""

import argparse
import json
import statistics
from dataclasses import dataclass
from pathlib import Path

from memory_cells import GIB, predict, write_samples
from memory_grid import ONE_GPU, TWO_GPUS, write_shapes

from launcher.memory.constants import CUDA_CONTEXT

MEASURED_IN = {"load": "load", "forward": "forward", "loss": "forward", "backward": "backward", "optimizer": "optimizer step", "save": "save"}


@dataclass(frozen=True)
class Line:
    """Bytes of one cell."""

    cell: str
    before: int  # allocated, predicted before it was measured
    now: int
    measured: int
    reserved: int
    nvml_now: int  # predicted, less what only the driver of several GPUs holds
    phases: dict[str, float]  # relative error of the present formulas in each


def line(record: dict, work: Path) -> Line:
    cells = {cell.name: cell for cell in (*ONE_GPU, *TWO_GPUS)}
    present = predict(cells[record["cell"]], work / "data", work / "shapes")["memory"]
    fullest = max(record["measured"], key=lambda rank: rank["allocated"])
    return Line(
        record["cell"],
        record["predicted"]["allocated"],
        present["allocated"],
        fullest["allocated"],
        fullest["reserved"],
        present["reserved"] + CUDA_CONTEXT,
        {name: size / fullest["phases"][name] - 1 for name, size in by_phase(present["phases"]).items() if fullest["phases"].get(name)},
    )


def by_phase(phases: dict[str, dict]) -> dict[str, int]:
    """The highest of the predicted phases that fall into each measured one."""
    highest: dict[str, int] = {}
    for name, phase in phases.items():
        measured = MEASURED_IN.get(name.replace(":", " ").split()[0])
        if measured is not None:
            highest[measured] = max(highest.get(measured, 0), phase["bytes"])
    return highest


def figures(errors: list[float]) -> str:
    sizes = [abs(error) for error in errors]
    return f"{statistics.median(sizes):.2%} | {max(sizes):.1%}"


def summary(name: str, lines: list[Line]) -> list[str]:
    phases = [error for each in lines for error in each.phases.values()]
    return [
        f"| {name}: allocated, as predicted before | {len(lines)} | {figures([each.before / each.measured - 1 for each in lines])} |",
        f"| {name}: allocated, present formulas | {len(lines)} | {figures([each.now / each.measured - 1 for each in lines])} |",
        f"| {name}: every phase, present formulas | {len(phases)} | {figures(phases)} |",
        f"| {name}: reserved and context (nvidia-smi), present formulas | {len(lines)} | "
        f"{figures([each.nvml_now / (each.reserved + CUDA_CONTEXT) - 1 for each in lines])} |",
    ]


def row(each: Line) -> str:
    sizes = f"{each.before / GIB:.2f} | {each.now / GIB:.2f} | {each.measured / GIB:.2f}"
    return f"| {each.cell} | {sizes} | {each.before / each.measured - 1:+.1%} | {each.now / each.measured - 1:+.1%} |"


def page(one: list[Line], two: list[Line], surroundings: dict) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in surroundings["versions"].items())
    head = [
        "# Measured memory",
        "",
        f"Made by `benchmarks/memory_tables.py` from `benchmarks/results/`. NVIDIA H200, {surroundings['date']}, {versions}.",
        "Six steps of `regimen train` a cell, random weights of published shapes (`_cut`: fewer layers), cells side by side on one GPU.",
        "The predictions of the one-GPU cells were committed before they were measured (`h200_memory_predicted.jsonl`). The present formulas were",
        "mended after these measurements: the columns `before` are the test, the columns `now` are formulas that have seen it.",
        "",
        "| | figures | median error | worst |",
        "|---|---|---|---|",
        *summary("one GPU", one),
        *summary("two GPUs", two),
        "",
        "GiB allocated at the peak:",
        "",
        "| cell | before | now | measured | error before | error now |",
        "|---|---|---|---|---|---|",
    ]
    return "\n".join([*head, *map(row, sorted((*one, *two), key=lambda each: each.cell)), ""])


def records(path: Path) -> list[dict]:
    return [record for record in map(json.loads, path.read_text().splitlines()) if "measured" in record]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--one", type=Path, required=True)
    parser.add_argument("--two", type=Path, required=True)
    parser.add_argument("--page", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("/tmp/regimen-tables"))
    arguments = parser.parse_args()
    write_shapes(arguments.work / "shapes")
    write_samples(arguments.work / "data")
    one, two = records(arguments.one), records(arguments.two)
    text = page([line(each, arguments.work) for each in one], [line(each, arguments.work) for each in two], one[0]["surroundings"])
    arguments.page.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
