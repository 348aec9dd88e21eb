"""The rates of launcher/timing/rates.py that follow the seconds of a file of fit.py best, and how far off they stay.

    python -m benchmarks.speed.rates benchmarks/results/speed/h200_fit.jsonl

products and traffic are searched one after the other; operands, dequantising and what the host needs are taken as they are measured elsewhere. Of 51
runs of six jobs, whose hosts were starting other runs; those of h200_speed.jsonl are not used, and serve as a check.
"""

import json
import math
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.speed.fit import JOBS
from conf.schema import Run
from launcher.composition.compose import compose
from launcher.facts.model import ModelFacts, model_facts
from launcher.facts.node import settled_node
from launcher.gate.settle import settled
from launcher.timing.rates import H200, Rates
from launcher.timing.step import once_terms, pass_terms
from launcher.timing.work import Work, work_of

ROUNDS, STEPS = 4, tuple(1 + part / 100 for part in range(-12, 13))
SCALE = 0.05  # a run that is further off counts less and less (the pseudo-Huber loss)


@dataclass(frozen=True)
class Timed:
    name: str
    run: Run
    facts: ModelFacts
    seconds: float  # of a step, the median

    @property
    def work(self) -> Work:
        return work_of(self.run, self.facts)


def timed_runs(path: Path) -> list[Timed]:
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [timed_run(line) for line in lines if "tokens_per_second" in line]


def timed_run(line: dict) -> Timed:
    """The run of a line: plain kernels and loss, as they were before there were others."""
    job = next(job for job in JOBS if job.name == line["job"])
    run = as_run(
        (f"model={job.model}", *job.choices, f"data.cutoff={job.length}", f"training.effective_batch={job.batch}"),
        (f"training.micro_batch={line['micro_batch']}", f"training.gradient_checkpointing={str(line['gradient_checkpointing']).lower()}"),
    )
    return Timed(line["name"], run, model_facts(run.model.architecture, job.model), line["step_tokens"] / line["tokens_per_second"])


def as_run(*keys: Sequence[str]) -> Run:
    composed = compose([*(key for part in keys for key in part), "data=demo", "node=h200_141", "training.max_steps=10"])
    return settled(composed, settled_node(composed.node, 1))


def step_seconds(works: Sequence[Work], rates: Rates) -> list[float]:
    return [sum(term.seconds for term in (*pass_terms(work, rates), *once_terms(work, rates))) for work in works]


def misfit(predicted: Sequence[float], runs: Sequence[Timed]) -> float:
    errors = [math.log(seconds / run.seconds) for seconds, run in zip(predicted, runs, strict=True)]
    return sum(math.sqrt(1 + (error / SCALE) ** 2) - 1 for error in errors)


def fitted(runs: Sequence[Timed]) -> Rates:
    works, rates = [run.work for run in runs], H200
    for _ in range(ROUNDS):
        for name in ("products", "traffic"):
            tried = [replace(rates, **{name: getattr(rates, name) * step}) for step in STEPS]
            rates = min(tried, key=lambda each: misfit(step_seconds(works, each), runs))
    return rates


def main() -> int:
    runs = timed_runs(Path(sys.argv[1]))
    rates = fitted(runs)
    predicted = step_seconds([run.work for run in runs], rates)
    for run, seconds in zip(runs, predicted, strict=True):
        print(f"{run.name:<34} {run.seconds:7.3f} s, fitted {seconds:7.3f}  {seconds / run.seconds - 1:+7.1%}")
    errors = [abs(seconds / run.seconds - 1) for seconds, run in zip(predicted, runs, strict=True)]
    print(f"products={rates.products:.3g} traffic={rates.traffic:.3g}")
    print(f"median {statistics.median(errors):.1%}, worst {max(errors):.1%} of {len(errors)} runs")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
