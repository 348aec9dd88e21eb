"""CPU time and memory of planning a sweep of 1,000 and of 10,000 points, beside the bare import of Hydra.

    python -m benchmarks.speed.sweep_planning --out RESULTS.jsonl                 some two minutes of a core

Each is a process of its own, `regimen plan -m --json` of an 8B LoRA grid: learning rates, five ranks, two micro-batches. What it prints goes nowhere.
A line is appended for each; `times_import` is its CPU time in bare imports of Hydra, of which the least of three counts.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

from benchmarks.running.cell_runs import surroundings

FIXED = ("model=llama3.1_8b", "data=demo", "node=h100_80", "node.gpus=8", "regime=lora", "regime.rank=8,16,32,64,128", "training.micro_batch=1,2")
IMPORT = (sys.executable, "-c", "import hydra")


def planning(points: int) -> tuple[str, ...]:
    rates = ",".join(f"{(number + 1) * 1e-6:.6f}" for number in range(points // 10))
    return (sys.executable, "-m", "launcher", "plan", "-m", "--json", *FIXED, f"optim.lr={rates}")


def cost(argv: tuple[str, ...]) -> tuple[float, int]:
    """CPU seconds and the largest resident set in bytes of a process, which ends well."""
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise RuntimeError(f"{argv[:5]} ended with {process.returncode}")
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    bare = min(cost(IMPORT)[0] for _ in range(3))
    with options.out.open("a", encoding="utf-8") as file:
        for points in (1000, 10000):
            seconds, size = cost(planning(points))
            found = {"probe": "sweep_planning", "points": points, "cpu_seconds": round(seconds, 2), "import_seconds": round(bare, 3)}
            found |= {"times_import": round(seconds / bare, 1), "max_resident": size}
            file.write(json.dumps({**found, **surroundings()}) + "\n")
            print(f"{points} points: {seconds:.1f} s of CPU, {seconds / bare:.0f} imports of Hydra, {size / 1e6:.0f} MB", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
