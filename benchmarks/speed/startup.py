"""Measures what a user waits for before any work begins: help, plans, refusals, estimates, and what `regimen train` adds before the agent starts.

    python -m benchmarks.speed.startup [--runs 10] [--out benchmarks/results/speed/startup.json]

Every command is a process of its own, its bytecode cached as an installed package has it; one run warms the caches and is not counted. Other work on
the machine lengthens the wall time, hardly the CPU time: both are recorded, with the load before and after. `--help` and a plan are also measured
against `python -c "import hydra, omegaconf"` beside them. Exits 1 when a median misses its goal.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from benchmarks.running.cpus import surroundings
from benchmarks.speed.once import REGIMEN, Taken, thousand_estimates, until_agent, whole

REPOSITORY = Path(__file__).resolve().parents[2]
HELP_SECONDS, PLAN_SECONDS, TRAIN_SECONDS, ESTIMATES_SECONDS = 0.15, 0.5, 1.0, 1.0
PERMITTED = ("plan", "model=llama3.1_8b", "data=demo", "node=h100_80")
YARDSTICK = (sys.executable, "-c", "import hydra, omegaconf")  # what no composition can do without
HELP_RATIO, PLAN_RATIO = 0.35, 3.0  # of its CPU time to the yardstick's
REFUSED = ("plan", "model=llama3.1_8b", "data=files", "data.sets=[org/name]", "regime=full", "node=a100_40")
PACKAGES = ("regimen", "hydra-core", "omegaconf", "pyyaml", "torch")


@dataclass(frozen=True)
class Measurement:
    command: str
    goal_seconds: float
    met: bool  # by the median of the wall time
    wall_seconds: dict[str, float]
    cpu_seconds: dict[str, float]


@dataclass(frozen=True)
class Ratio:
    command: str
    goal: float
    met: bool  # by the median
    ratio: dict[str, float]  # of CPU seconds, pair by pair, to those of the yardstick that ran beside it


def main() -> int:
    arguments = parsed()
    with tempfile.TemporaryDirectory(prefix="regimen-startup-") as folder:
        work, before = Path(folder), os.getloadavg()
        site = environment(work)
        results = [measured(*row, arguments.runs) for row in rows(work, site)]
        ratios = [beside_yardstick(argv, goal, work, site, arguments.runs) for argv, goal in ((("--help",), HELP_RATIO), (PERMITTED, PLAN_RATIO))]
    arguments.out.write_text(
        json.dumps(
            {**surroundings(PACKAGES, before), "runs": arguments.runs, "measurements": [*map(asdict, results)], "ratios": [*map(asdict, ratios)]},
            indent=1,
        )
        + "\n"
    )
    for result in results:
        print(f"{result.command:<110} {result.wall_seconds['median']:.3f} s, CPU {result.cpu_seconds['median']:.3f} s, goal {result.goal_seconds} s")
    for ratio in ratios:
        print(f"{ratio.command:<110} {ratio.ratio['median']:.2f} times `{' '.join(YARDSTICK[1:])}`, goal {ratio.goal}")
    return 0 if all(result.met for result in (*results, *ratios)) else 1


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure the start of every command.")
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--out", type=Path, default=REPOSITORY / "benchmarks" / "results" / "speed/startup.json")
    return parser.parse_args()


def environment(work: Path) -> dict[str, str]:
    """This environment, from a folder that is not the checkout, with bytecode cached in a place that leaves no trace."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, "PYTHONPATH": str(REPOSITORY), "PYTHONPYCACHEPREFIX": str(work / "bytecode")}


def rows(work: Path, site: Mapping[str, str]) -> list[tuple[str, float, Callable[[], Taken]]]:
    """(what is measured, its goal, how it is run once)."""
    asked = subprocess.run([*REGIMEN, "--help"], cwd=work, env=site, capture_output=True, text=True, check=True).stdout
    verbs = re.findall(r"^    ([a-z]+)  ", asked, re.MULTILINE)
    helps = [("--help",), *((verb, "--help") for verb in verbs)]
    commands = [*((argv, HELP_SECONDS, 0) for argv in helps), (PERMITTED, PLAN_SECONDS, 0), (REFUSED, PLAN_SECONDS, 3)]
    ending = [
        (" ".join(["regimen", *argv]), goal, lambda argv=argv, code=code: whole([*REGIMEN, *argv], code, work, site)) for argv, goal, code in commands
    ]
    train = ("regimen train, until torchrun is started", TRAIN_SECONDS, lambda: until_agent(work, site))
    return [*ending, train, ("1,000 estimates in one process, 32 different ones", ESTIMATES_SECONDS, lambda: thousand_estimates(work, site))]


def measured(command: str, goal: float, once: Callable[[], Taken], runs: int) -> Measurement:
    once()
    taken = [once() for _ in range(runs)]
    walls, cpus = [one.wall for one in taken], [one.cpu for one in taken]
    return Measurement(command, goal, median(walls) <= goal, spread(walls), spread(cpus))


def beside_yardstick(argv: Sequence[str], goal: float, work: Path, site: Mapping[str, str], runs: int) -> Ratio:
    """A command and the yardstick in turn, so that other work on the machine slows both alike."""

    def pair() -> float:
        return whole([*REGIMEN, *argv], 0, work, site).cpu / whole(YARDSTICK, 0, work, site).cpu

    pair()
    ratios = [pair() for _ in range(runs)]
    return Ratio(" ".join(["regimen", *argv]), goal, median(ratios) <= goal, spread(ratios))


def spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": round(median(values), 4), "least": round(min(values), 4), "most": round(max(values), 4)}


if __name__ == "__main__":
    raise SystemExit(main())
