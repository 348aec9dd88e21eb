"""How far a trace is from what an H200 measured: cells of families with tables on one GPU, predicted from traces as families without tables are.

    python -m benchmarks.memory.traced --cells 60 --seed 20261130 --out results/memory/h200_traced.jsonl

No GPU: the cells were measured (results/memory/h200_*.jsonl). They are drawn by the seed from those whose settings can be traced; fused kernels,
regime=freeze and optim=badam are not. Nothing in a trace knows the formulas of these families, but the terms outside of their layers are the same.
"""

import argparse
import json
import random
import statistics
from dataclasses import replace
from pathlib import Path

from benchmarks.memory.cells import GRIDS, overrides, write_samples
from benchmarks.memory.chosen import write_shapes
from benchmarks.memory.measured import MENDED, records
from benchmarks.memory.tables import FILES
from conf.schema import Badam, Freeze
from launcher.composition.compose import compose
from launcher.errors import ConfigError
from launcher.facts.model.census import default_cache
from launcher.facts.model.tracing import trace_file
from launcher.gate.judge import Judged, judge_run
from launcher.memory.estimate import estimate
from launcher.memory.job import worst_batch
from launcher.memory.traces import settings_of
from launcher.memory.weights.dtypes import storage_of
from trainers.tracing.__main__ import answer

RESULTS = Path(__file__).resolve().parents[1] / "results"
GRIDS_MEASURED = ("chosen", "from_files", "variants", "drawn", "drawn_again")
CELLS = {cell.name: cell for grid in GRIDS.values() for group in grid for cell in group}


def measured() -> dict[str, int]:
    """Peak bytes that torch allocated, by the name of the cell."""
    lines = [record for key, path in FILES.items() if key in ((name, 1) for name in GRIDS_MEASURED) for record in records(RESULTS / path)]
    return {line["cell"]: max(rank["allocated"] for rank in line["measured"]) for line in lines if line["cell"] not in MENDED}


def judged(name: str, data: Path, shapes: Path) -> Judged | None:
    """None for a cell that would be refused today, or that is not traced."""
    try:
        found = judge_run(compose([*overrides(CELLS[name], data), "node=h200_141", "node.gpus=1"], [shapes]))
    except ConfigError:
        return None
    run = found.run
    other = isinstance(run.regime, Freeze) or isinstance(run.optim, Badam) or run.training.kernels == "fused" or run.training.attention == "varlen"
    return None if other or found.facts.architecture else found


def by_trace(found: Judged) -> tuple[int | None, str | None]:
    """The predicted peak, or why it cannot be traced."""
    text = json.dumps(dict(found.run.model.architecture), sort_keys=True)
    settings = settings_of(found.run, storage_of(found.run), worst_batch(found.run, found.facts))
    kept = trace_file(text, settings, default_cache())
    if not kept.is_file():
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps(answer(json.loads(text), settings)), encoding="utf-8")
    said = json.loads(kept.read_text(encoding="utf-8"))
    if "refused" in said:
        return None, said["refused"]
    return estimate(found.run, replace(found.facts, architecture=text)).allocated, None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=60)
    parser.add_argument("--seed", type=int, default=20261130)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("/tmp/regimen-traced"))
    arguments = parser.parse_args()
    shapes, data, there = write_shapes(arguments.work / "shapes"), write_samples(arguments.work / "data"), measured()
    names = sorted(there)
    random.Random(arguments.seed).shuffle(names)
    errors: list[float] = []
    with arguments.out.open("w", encoding="utf-8") as file:
        for name in names:
            found = judged(name, data, shapes)
            if found is None:
                continue
            predicted, refused = by_trace(found)
            line = {"cell": name, "family": found.facts.family, "measured": there[name], "by_table": found.estimate.allocated, "by_trace": predicted}
            file.write(json.dumps(line | ({"refused": refused} if refused else {})) + "\n")
            file.flush()
            if predicted is None:
                print(f"{name:<60} cannot be traced: {refused}", flush=True)
                continue
            errors.append(predicted / there[name] - 1)
            print(
                f"{name:<60} {there[name] / 2**30:7.2f} GiB  {errors[-1]:+.2%}  by table {found.estimate.allocated / there[name] - 1:+.2%}",
                flush=True,
            )
            if len(errors) == arguments.cells:
                break
    sizes = [abs(error) for error in errors]
    print(f"{len(errors)} cells: median {statistics.median(sizes):.2%}, {min(errors):+.2%} to {max(errors):+.2%}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
