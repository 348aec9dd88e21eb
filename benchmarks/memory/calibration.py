"""How far predictions are from what was measured, and how often the stated ranges hold it.

    python -m benchmarks.memory.calibration show RESULTS.jsonl ...                  median and worst of each figure, of any results of cells.py
    python -m benchmarks.memory.calibration compare --out LINES.jsonl RESULTS.jsonl ...     one line a cell; cells that LINES holds are skipped
    python -m benchmarks.memory.calibration before --out BEFORE.jsonl RESULTS.jsonl ...      the same of what was predicted where the cell ran
    python -m benchmarks.memory.calibration page --lines LINES.jsonl --before BEFORE.jsonl --page docs/reference/calibration.md

RESULTS of cells.py, and of benchmarks/stages/stage_cells.py. Every cell is predicted by the present formulas. Cells that would be refused today, or
whose trainer was corrected since (measured.MENDED), are left out. Runs that were measured before cuBLAS' workspaces were made ahead of the first step
are replayed as they were, and of those on two GPUs whose trainer had other buckets counts what was predicted then (then.py). The ranges are those
that a plan states today.
"""

import argparse
import json
import random
import statistics
from collections.abc import Collection, Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from benchmarks.memory.cells import GRIDS, MORE_SHAPES, write_samples
from benchmarks.memory.chosen import write_shapes
from benchmarks.memory.measured import MENDED, errors, records, seen_by_driver
from benchmarks.memory.stage_records import judge_stage
from benchmarks.memory.then import estimate_then, had_other_buckets, is_late, judge_cell
from conf.regimes import regime_row
from conf.schema import Fsdp
from launcher.errors import ConfigError
from launcher.gate.judge import Judged
from launcher.memory.terms import MemoryEstimate, total

CELLS = {cell.name: cell for grid in GRIDS.values() for group in grid for cell in group}
FIGURES = ("allocated", "reserved", "nvidia-smi", "host")
IN_RECORDS = {"allocated": "allocated", "reserved": "reserved", "nvidia-smi": "nvml", "host": "host"}
ON_TWO = "calibration_on_two.jsonl"
# Of these the host is left out: their weights lay in memory (tmpfs), and what is mapped of them counts as shared memory of a process while it loads.
MAPPED = frozenset({"h200_fused_layers.jsonl"})
# Nor is it counted of FSDP2 where every weight learns, measured until this day: each rank has read its share alone since (trainers/model/shares.py).
WHOLE_UNTIL = "2026-11-30"
SEED, SHARE = 14, 0.97
LEAST = 20  # cells of a group of which a share says something: below, one cell is more than 5 %


@dataclass(frozen=True)
class Size:
    """Bytes: measured, predicted, and the range that the plan states (None: it states none)."""

    measured: int
    predicted: int
    low: int | None
    high: int | None

    @property
    def error(self) -> float:
        return self.predicted / self.measured - 1

    @property
    def held(self) -> bool:
        return self.low is not None and self.high is not None and self.low <= self.measured <= self.high


@dataclass(frozen=True)
class Line:
    results: str  # the file
    cell: str
    family: str
    regime: str
    sharding: str
    stage: str
    kind: str  # of job, whose range of `allocated` is the widest
    sizes: dict[str, Size]
    phases: list[float] | None = None  # errors of the peak of each phase, by the present formulas; None: they were not compared


def line_of(results: Path, record: dict, work: Path) -> Line | None:
    """None where the present trainer is another one, or refuses the cell."""
    if record["cell"] in MENDED:
        return None
    try:
        judged = judge_cell(CELLS[record["cell"]], work) if record["cell"] in CELLS else judge_stage(record, work)
    except ConfigError:
        return None
    run, estimate = judged.run, estimate_then(judged, record)
    other_buckets = had_other_buckets(run, record)
    predicted = predicted_then(results, record) if other_buckets else of_estimate(estimate)
    if predicted is None:
        return None
    sharding = run.sharding.name if record["gpus"] > 1 else "one GPU"
    named = (judged.facts.family, regime_name(judged), sharding, run.stage.name, estimate.uncertainty.source)
    sizes = sizes_of(predicted, estimate, record["measured"])
    loaded_otherwise = (
        isinstance(run.sharding, Fsdp) and regime_row(run.regime.name).learns != "an adapter" and record["surroundings"]["date"] <= WHOLE_UNTIL
    )
    counted = {figure: size for figure, size in sizes.items() if figure != "host" or not (results.name in MAPPED or loaded_otherwise)}
    phases = None if other_buckets else errors(estimate.as_dict(), record["measured"])["phases"]
    return Line(results.name, record["cell"], *named, counted, phases)


@cache
def lines_by_cell(path: Path) -> dict[tuple[str, str], Line]:
    return {(line.results, line.cell): line for line in read_lines(path)}


def of_estimate(estimate: MemoryEstimate) -> dict[str, int]:
    return {"allocated": estimate.allocated, "reserved": estimate.reserved, "nvidia-smi": estimate.nvml, "host": estimate.host}


def predicted_then(results: Path, record: dict) -> dict[str, int] | None:
    """By the last formulas of the trainer that it ran with (calibration_on_two.jsonl), or as it was committed since; None of earlier stages, whose
    formulas had faults that are fixed."""
    earlier = lines_by_cell(results.with_name(ON_TWO))
    if (results.name, record["cell"]) in earlier:
        return {figure: size.predicted for figure, size in earlier[results.name, record["cell"]].sizes.items()}
    committed = record["predicted"]
    return {name: committed[key] for name, key in IN_RECORDS.items()} if "reserved" in committed else None


def regime_name(judged: Judged) -> str:
    regime = judged.run.regime
    bits = getattr(regime, "bits", None)
    return f"{regime.name}, {bits} bits" if bits else regime.name


def sizes_of(predicted: dict[str, int], estimate: MemoryEstimate, ranks: list[dict]) -> dict[str, Size]:
    """Of the fullest rank; of all ranks together on the host."""
    outside, ranges = total(estimate.outside), estimate.ranges
    allocated, driver = predicted["allocated"], predicted["nvidia-smi"]
    seen = max(seen_by_driver(rank, outside) for rank in ranks)
    found = {
        "allocated": Size(max(rank["allocated"] for rank in ranks), allocated, ranges.needed.low(allocated), ranges.needed.high(allocated)),
        "reserved": Size(max(rank["reserved"] for rank in ranks), predicted["reserved"], None, None),
        "nvidia-smi": Size(seen, driver, ranges.driver.low(driver), ranges.driver.high(driver)),
    }
    if all("host_phases" in rank for rank in ranks):
        host = predicted["host"]
        found["host"] = Size(sum(rank["host"] for rank in ranks), host, ranges.host.low(host), ranges.host.high(host))
    return found


def line_before(results: Path, record: dict) -> Line:
    """What the run itself predicted before its first step, beside what it then measured; it states no ranges."""
    there, ranks, outside = record["predicted_there"], record["measured"], sum(record["predicted"]["outside"].values())
    sizes = {
        "allocated": Size(max(rank["allocated"] for rank in ranks), there["allocated"], None, None),
        "nvidia-smi": Size(max(seen_by_driver(rank, outside) for rank in ranks), there["nvml"], None, None),
        "host": Size(sum(rank["host"] for rank in ranks), there["host"], None, None),
    }
    return Line(results.name, record["cell"], "", "", "one GPU" if record["gpus"] == 1 else "two GPUs", "", "", sizes)


def compared(paths: Iterable[Path], work: Path, done: Collection[tuple[str, str]] = ()) -> Iterator[Line]:
    for path in paths:
        for record in records(path):
            line = None if (path.name, record["cell"]) in done else line_of(path, record, work)
            if line is not None:
                yield line


def read_lines(path: Path) -> list[Line]:
    found = map(json.loads, path.read_text(encoding="utf-8").splitlines()) if path.is_file() else ()
    return [Line(**{"kind": "", **one, "sizes": {figure: Size(**size) for figure, size in one["sizes"].items()}}) for one in found]


def errors_of(lines: Iterable[Line], figure: str) -> list[tuple[float, str]]:
    """Absolute errors with their cells, the largest first."""
    return sorted(((abs(line.sizes[figure].error), line.cell) for line in lines if figure in line.sizes), reverse=True)


def summary(lines: list[Line]) -> list[str]:
    """One line a figure: cells, median and worst error, how many lie within the stated range."""
    shown = []
    for figure in FIGURES:
        found, sizes = errors_of(lines, figure), [line.sizes[figure] for line in lines if figure in line.sizes]
        if found:
            worst, cell = found[0]
            held = f"{sum(size.held for size in sizes)} within the range" if sizes[0].low is not None else "no range stated"
            middle = statistics.median(error for error, _ in found)
            shown.append(f"{figure:<11} {len(found):>4} cells  median {middle:.2%}  worst {worst:.1%} ({cell})  {held}")
    return shown


def groups_of(lines: list[Line]) -> Iterator[tuple[str, list[Line]]]:
    yield "all cells", lines
    for name_of in ("kind", "sharding", "regime", "family", "stage"):
        names = sorted({getattr(line, name_of) for line in lines})
        for name in names if len(names) > 1 else ():
            yield f"{name_of}: {name}", [line for line in lines if getattr(line, name_of) == name]


def held_text(lines: list[Line], figure: str) -> str:
    sizes = [line.sizes[figure] for line in lines if figure in line.sizes]
    if not sizes:
        return ""
    held = sum(size.held for size in sizes)
    return f"{held} of {len(sizes)}" + (f" ({held / len(sizes):.0%})" if len(sizes) >= LEAST else "")


def median_text(lines: list[Line], figure: str) -> str:
    found = errors_of(lines, figure)
    return f"{statistics.median(error for error, _ in found):.2%} / {found[0][0]:.1%}" if found else ""


def held_out(lines: list[Line], figure: str) -> str:
    """The range that holds SHARE of one half of the cells, and what it says of the other half, which it has not seen."""
    known = [line for line in lines if figure in line.sizes]
    random.Random(SEED).shuffle(known)
    seen, unseen = known[: len(known) // 2], known[len(known) // 2 :]
    ratios = sorted(line.sizes[figure].measured / line.sizes[figure].predicted - 1 for line in seen)
    cut = round(len(ratios) * (1 - SHARE) / 2)
    low, high = ratios[cut], ratios[-1 - cut]
    held = sum(low <= line.sizes[figure].measured / line.sizes[figure].predicted - 1 <= high for line in unseen)
    text = (
        f"{low:+.1%} to {high:+.1%} hold {len(seen) - 2 * cut} of {len(seen)} cells, and {held} of the other {len(unseen)} ({held / len(unseen):.0%})"
    )
    return f"{text}; their median and worst error: {median_text(unseen, figure)}"


def before_rows(before: list[Line]) -> list[str]:
    """One of each file of results."""
    figures = ("allocated", "nvidia-smi", "host")
    names = list(dict.fromkeys(line.results for line in before))
    of_file = {name: [line for line in before if line.results == name] for name in names}
    return [f"| {name} | {len(found)} | " + " | ".join(median_text(found, figure) for figure in figures) + " |" for name, found in of_file.items()]


def page(lines: list[Line], before: list[Line]) -> str:
    ranged = [figure for figure in FIGURES if figure != "reserved"]
    head = " | ".join(f"{figure}: within, error" for figure in ranged)
    rows = [
        f"| {name} | {len(group)} | " + " | ".join(f"{held_text(group, figure)} {median_text(group, figure)}".strip() for figure in ranged) + " |"
        for name, group in groups_of(lines)
    ]
    outside = [
        f"- {line.cell}: {figure} {size.measured / 2**30:.2f} GiB, stated {size.low / 2**30:.2f} to {size.high / 2**30:.2f}"
        for line in lines
        for figure, size in line.sizes.items()
        if size.low is not None and size.high is not None and not size.held
    ]
    return "\n".join(
        [
            "# How often the stated ranges hold",
            "",
            "Made by `benchmarks/memory/calibration.py` from `benchmarks/results/memory/calibration.jsonl`: the cells on record, predicted by the",
            "present formulas, on NVIDIA H200s. `within`: cells whose measured size lies in the range that a plan states; a share is given from",
            f"{LEAST} cells on.",
            "`error`: median and worst. A range is meant to hold 95 to 99 % of the cells; one that holds all of many is wider than it need be.",
            "`kind` is the row of `launcher/memory/uncertainty.py` that states the range of `allocated`, by which the gate permits a run.",
            "Most runs on two GPUs under DDP, ZeRO-1 and ZeRO-2 were measured before the trainer made other buckets (63efd71). Of them counts what",
            "the formulas said before that change (`calibration_on_two.jsonl`, or their own records), with the ranges that are stated now.",
            "",
            f"| cells | count | {head} |",
            "|---|---|" + "---|" * len(ranged),
            *rows,
            "",
            f"What a range is worth for cells that it was not made from: half of the cells, drawn by the seed {SEED}, give the narrowest one that "
            f"holds {SHARE:.0%} of them.",
            "",
            *(
                f"- {figure}, {place}: {held_out([line for line in lines if (line.sharding == 'one GPU') is one], figure)}."
                for figure in ranged
                for place, one in (("one GPU", True), ("two GPUs", False))
            ),
            "",
            "What the runs of 2026-11-30 on two H200s predicted themselves, before their first step; median and worst error",
            "(`benchmarks/results/memory/calibration_before.jsonl`):",
            "",
            "| results | cells | allocated | nvidia-smi | host |",
            "|---|---|---|---|---|",
            *before_rows(before),
            "",
            "Outside of their range:",
            "",
            *(outside or ["none"]),
            "",
        ]
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("act", choices=("show", "compare", "before", "page"))
    parser.add_argument("results", type=Path, nargs="*")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--lines", type=Path, nargs="+")
    parser.add_argument("--before", type=Path)
    parser.add_argument("--page", type=Path)
    parser.add_argument("--work", type=Path, default=Path("/tmp/regimen-calibration"))
    arguments = parser.parse_intermixed_args()
    if arguments.act == "page":
        arguments.page.write_text(
            page([line for path in arguments.lines for line in read_lines(path)], read_lines(arguments.before)), encoding="utf-8"
        )
        return 0
    if arguments.act == "before":
        lines = [line_before(path, record) for path in arguments.results for record in records(path) if not is_late(record)]
        arguments.out.write_text("".join(json.dumps(asdict(line)) + "\n" for line in lines), encoding="utf-8")
        return 0
    write_shapes(arguments.work / "shapes", MORE_SHAPES)
    write_samples(arguments.work / "data")
    if arguments.act == "show":
        print("\n".join(summary(list(compared(arguments.results, arguments.work)))))
        return 0
    done = {(line.results, line.cell) for line in read_lines(arguments.out)}
    with arguments.out.open("a", encoding="utf-8") as file:
        for line in compared(arguments.results, arguments.work, done):
            file.write(json.dumps(asdict(line)) + "\n")
            file.flush()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
