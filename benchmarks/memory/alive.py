"""What is alive at the peak of one memory cell on a GPU: blocks by their sizes.

    python -m benchmarks.memory.alive lora-dora-fused/qwen2.5_0.5b/4x1024 --bases FOLDER

The cell runs as cells.py runs it, its rank by alive_rank.py, which follows every allocation (torch.cuda.memory._record_memory_history). Beside
what tests/launcher/memory/tracing holds at its peak, which needs no GPU, it tells which term of an estimate is missing.
"""

import argparse
import json
from pathlib import Path

from benchmarks.memory.cells import BASES, GRIDS, overrides, write_samples
from benchmarks.memory.chosen import write_shapes
from benchmarks.running.cell_runs import run_by
from benchmarks.running.processes import environment_for
from launcher.composition.compose import compose
from launcher.gate.judge import judge_run

RANK = Path(__file__).with_name("alive_rank.py")
SHOWN = 60


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cell", choices=sorted(cell.name for grid in GRIDS.values() for group in grid for cell in group), metavar="CELL")
    parser.add_argument("--bases", type=Path, default=BASES)
    parser.add_argument("--work", type=Path, default=Path("/tmp/regimen-alive"))
    arguments = parser.parse_args()
    shapes, data = write_shapes(arguments.work / "shapes"), write_samples(arguments.work / "data")
    (cell,) = (cell for grid in GRIDS.values() for group in grid for cell in group if cell.name == arguments.cell)
    given = [*overrides(cell, data, arguments.bases), "training.max_steps=3", "node=auto", "node.gpus=1", f"output={arguments.work / 'runs'}"]
    judged = judge_run(compose([*given, f"name={cell.name.replace('/', '-')}"], [shapes]))
    run_dir, code, output = run_by((str(RANK),), judged, environment_for((), 1), 300)
    if code:
        print(run_dir.rank_log(0).read_text()[-2000:] if run_dir.rank_log(0).exists() else output[-2000:])
        return code
    for size, count in json.loads((run_dir.path / "alive.json").read_text())[:SHOWN]:
        print(f"{count:5} x {size:12} bytes = {count * size / 2**20:9.1f} MiB")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
