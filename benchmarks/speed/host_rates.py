"""What the host needs for each thing of a step (launcher/timing/rates.py), fitted to every run on record that was timed alone on its GPU.

    python -m benchmarks.speed.host_rates benchmarks/results/speed

Searched one after the other, in turns; each is drawn back to where it began, so that what few runs tell apart stays near it. `with others left out`:
each cell by rates that were fitted without it.
"""

import math
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.speed.rates import misfit
from benchmarks.speed.times import read
from benchmarks.speed.times_page import run_of
from benchmarks.speed.ways import AS_IT_IS
from launcher.timing.launches import HostWork, host_work
from launcher.timing.rates import H200, TURN, Host, Rates
from launcher.timing.step import host_seconds, once_terms, overlap, pass_terms
from launcher.timing.work import work_of

FILES = ("h200_times_again.jsonl", "h200_times.jsonl", "h200_times_small.jsonl", "h200_times_norms.jsonl", "h200_step_profiles.jsonl")
# Where the search begins: what ten profiles told (results/speed/h200_step_profiles.jsonl).
BEGIN = Host(kernel=19.8e-6, function=90e-6, dequantised=114e-6, repeated=2.33e-3, module=21e-6, step=8.5e-3)
ROUNDS, STEPS, DRAWN_BACK, PARTS = 6, (-0.05, -0.02, 0.0, 0.02, 0.05), 2.0, 12
APART = ("kernel", "dequantised", "repeated")  # with plain and with fused kernels; the others are the same thing in both


@dataclass(frozen=True)
class Alone:
    cell: str
    seconds: float  # of a step, the median
    asked: HostWork
    fused: bool
    passes: int
    busy: float  # seconds of the GPU in one micro-batch
    once: float
    power: int
    slower: float  # than the host of launcher/timing/rates.py, TURN


def runs_alone(folder: Path) -> list[Alone]:
    found = []
    for line in (line for name in FILES for line in with_turns(read(folder / name))):
        if "step" not in line or line.get("way", AS_IT_IS) != AS_IT_IS:
            continue
        work = work_of(*run_of(line))
        passes, (*on_gpu, _) = work.run.training.accumulation, pass_terms(work, H200)
        busy, once = sum(term.seconds for term in on_gpu) / passes, sum(term.seconds for term in once_terms(work, H200))
        found.append(
            Alone(line["cell"], line["step"], host_work(work), work.arithmetic.fused, passes, busy, once, overlap(work), line["turn"] / TURN)
        )
    return found


def with_turns(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each with `turn`: ns of a turn in Python, of its own steps, else the median of its session, else as if it had been TURN."""
    looks = [1e3 * speeds["loop"] for line in lines for speeds in line.get("host_speeds", [])]
    session = statistics.median(looks) if looks else TURN
    return [{**line, "turn": statistics.median(line["python_turns"]) if "python_turns" in line else session} for line in lines]


def step_seconds(run: Alone, rates: Rates) -> float:
    host = run.slower * host_seconds(run.asked, rates.fused if run.fused else rates.plain, run.passes)
    return float(run.passes * (run.busy**run.power + host**run.power) ** (1 / run.power) + run.once)


def fitted(runs: Sequence[Alone]) -> Rates:
    rates = replace(H200, plain=BEGIN, fused=BEGIN)

    def cost(tried: Rates) -> float:
        far = sum(math.log(getattr(host, name) / getattr(BEGIN, name)) ** 2 for host in (tried.plain, tried.fused) for name in vars(BEGIN))
        return misfit([step_seconds(run, tried) for run in runs], runs) + DRAWN_BACK * far

    for _ in range(ROUNDS):
        for name in vars(BEGIN):
            for kinds in (("plain",), ("fused",)) if name in APART else (("plain", "fused"),):
                rates = min((moved(rates, kinds, name, 1 + step) for step in STEPS), key=cost)
    return rates


def moved(rates: Rates, kinds: Sequence[str], name: str, by: float) -> Rates:
    return replace(rates, **{kind: replace(getattr(rates, kind), **{name: by * getattr(getattr(rates, kind), name)}) for kind in kinds})


def said(errors: Sequence[float]) -> str:
    sizes = sorted(map(abs, errors))
    return f"median {statistics.median(sizes):.1%}, nine of ten {sizes[len(sizes) * 9 // 10]:.1%}, worst {sizes[-1]:.1%} of {len(sizes)} runs"


def main() -> int:
    runs = runs_alone(Path(sys.argv[1]))
    rates, cells = fitted(runs), sorted({run.cell for run in runs})
    errors = [step_seconds(run, rates) / run.seconds - 1 for run in runs]
    for run, error in sorted(zip(runs, errors, strict=True), key=lambda pair: -abs(pair[1])):
        print(f"{run.cell:<64} {run.seconds:7.3f} s  {error:+7.1%}")
    print(f"plain: {rates.plain}\nfused: {rates.fused}\n{said(errors)}")
    left_out = []
    for part in range(PARTS):
        others = fitted([run for run in runs if cells.index(run.cell) % PARTS != part])
        left_out += [step_seconds(run, others) / run.seconds - 1 for run in runs if cells.index(run.cell) % PARTS == part]
    print(f"with others left out: {said(left_out)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
