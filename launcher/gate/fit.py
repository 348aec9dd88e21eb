"""training.fit=auto: micro-batch, gradient checkpointing and sharding chosen for a given effective batch: the fastest combination that is permitted.

"Fastest" is an order, not a prediction of time: three factors are multiplied, and only comparisons matter.

1. Operations. Recomputed activations are counted exactly (launcher/gate/throughput.py): a third more for full training, up to half more for adapters;
   so are the passes without gradients that a stage makes (launcher/memory/stages.py).
2. Passes. Launching the kernels of one layer's forward and backward pass takes as long as LAUNCH operations, REPEATED times that with gradient
   checkpointing, while the GPU works on what was launched before: a pass takes the root of the sum of squares of both, so larger micro-batches
   come first. From SATURATED_TOKENS tokens a pass on no further gain is counted, and the smaller micro-batch, which leaves more memory,
   comes first.
3. Sharding. What it adds to a step, `slowdown` in conf/shardings.py: ddp, then zero1, zero2, fsdp2, zero3, then what waits for host memory.

Limits: LAUNCH and REPEATED are fitted to six jobs of 0.5 to 8 billion parameters on one H200, in each of which this order chose the fastest of all
permitted combinations; the slowdowns that say so are unmeasured, the others come from one model on two GPUs. Every sample counts as long as
data.cutoff: where most are shorter, larger micro-batches are worth more than counted, and padding makes them worth less.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product
from math import ceil, hypot

from conf.ranks import ranks
from conf.schema import Composed, Run, Sharding
from conf.shardings import SHARDINGS, sharding_row
from launcher.errors import ConfigError
from launcher.facts.model import ModelFacts
from launcher.gate.changes import choice, has_file, trained, with_micro_batch
from launcher.gate.proposals import JudgeRun
from launcher.gate.throughput import step_flops
from launcher.gate.verdict import Verdict
from launcher.memory.stages import sample_tokens
from launcher.rules.pairs import incompatibilities

LAUNCH = 1.6e12  # operations; benchmarks/speed/fit.py --report results/speed/h200_fit.jsonl: the order is 12 % off the seconds of 51 combinations
REPEATED = 2.0  # of the same: the forward pass again, and what Python adds to it
SATURATED_TOKENS = 16384  # no measured pass was longer; from 8,192 to 16,384 tokens the gain was 2 to 8 %


def opened(composed: Composed) -> Composed:
    """The composed run with its batch left open; settled, its micro-batch is 1.

    Raises:
        ConfigError: where the batch to keep is not stated, or its division is.
    """
    training = composed.training
    if training.effective_batch is None:
        raise ConfigError(
            "training.fit=auto chooses the micro-batch that keeps the effective batch, and training.effective_batch has no value. "
            "Set it to the samples of one optimizer step over all ranks."
        )
    if training.accumulation is not None:
        raise ConfigError(
            f"training.fit=auto chooses training.accumulation, but training.accumulation={training.accumulation} is given. Leave one of them out."
        )
    return replace(composed, training=replace(training, micro_batch=1))


def fitted(run: Run, facts: ModelFacts, judge: JudgeRun, samples: int | None = None) -> tuple[Run, tuple[str, ...]]:
    """The fastest permitted form of an opened and settled run, and why; where none is permitted, the one that comes closest.

    `samples`: training samples where they are known; every rank needs one whole micro-batch of them.
    """
    by_speed = sorted(candidates(run, samples), key=lambda candidate: (slowness(candidate, facts), candidate.training.micro_batch))
    verdicts = [judge(candidate) for candidate in by_speed]
    permitted = [index for index, verdict in enumerate(verdicts) if verdict.permitted]
    if not permitted:
        best = min(range(len(by_speed)), key=lambda index: (*shortage(verdicts[index]), index))
        return by_speed[best], (f"none of the {len(by_speed)} combinations is permitted; {named(by_speed[best])} comes closest",)
    chosen = by_speed[permitted[0]]
    head = f"{named(chosen)} comes first in the order of speed of the {len(permitted)} permitted of {len(by_speed)} combinations"
    return chosen, (head, *obstacles(chosen, by_speed[: permitted[0]], verdicts))


def candidates(run: Run, samples: int | None) -> Iterator[Run]:
    """Every combination that can work and keeps the effective batch."""
    for sharding, checkpointing, size in product(shardings(run), (False, True), micro_batches(run, samples)):
        candidate = with_micro_batch(trained(replace(run, sharding=sharding), gradient_checkpointing=checkpointing), size)
        if not incompatibilities(candidate):
            yield candidate


def shardings(run: Run) -> list[Sharding]:
    """One rank has nothing to split, a CPU nowhere else to move to; fields that the user set of the given choice stay. A sharding without a built-in
    file is kept where it is given, and never chosen."""
    given = run.sharding
    known = [(name, row) for name, row in SHARDINGS.items() if name == given.name or has_file("sharding", name)]
    there = [(name, row) for name, row in known if run.node.gpus or not row.offloads]
    useful = [name for name, row in there if ranks(run) > 1 or not row.splits or row.offloads]
    return [given if name == given.name else choice("sharding", name) for name in useful]


def micro_batches(run: Run, samples: int | None) -> list[int]:
    share = run.training.effective_batch // ranks(run)
    saturated = ceil(SATURATED_TOKENS / sample_tokens(run))
    there = share if samples is None else max(1, samples // ranks(run))
    return [size for size in range(1, min(share, saturated, there) + 1) if share % size == 0]


def slowness(run: Run, facts: ModelFacts) -> float:
    step_tokens = run.training.effective_batch * sample_tokens(run)
    passes = step_tokens / min(run.training.micro_batch * sample_tokens(run), SATURATED_TOKENS)
    launches = passes * facts.layers * LAUNCH * (REPEATED if run.training.gradient_checkpointing else 1)
    return hypot(step_flops(facts, run, step_tokens).hardware, launches) * sharding_row(run.sharding.name).slowdown


def shortage(verdict: Verdict) -> tuple[int, int]:
    """How far a verdict is from a permit: the checks that failed, and the bytes that are missing."""
    failed = [check for check in verdict.checks if check.binding and not check.passed]
    return len(failed), max(0, -verdict.headroom)


def obstacles(chosen: Run, faster: Sequence[Run], verdicts: Sequence[Verdict]) -> list[str]:
    """For each of the three choices, why the next faster one was not chosen. Everything faster than the first permitted one is refused."""
    nearest: dict[str, str] = {}
    for candidate, verdict in zip(faster, verdicts, strict=False):
        differing = [key for key, value in parts(candidate).items() if value != parts(chosen)[key]]
        if len(differing) == 1:
            failed = next(check for check in verdict.checks if check.binding and not check.passed)
            nearest[differing[0]] = f"{parts(candidate)[differing[0]]} instead would come before it, but {failed.rule}: {failed.sentence}"
    return list(nearest.values())


def parts(run: Run) -> dict[str, str]:
    training = run.training
    return {
        "micro-batch": f"micro-batch {training.micro_batch}",
        "checkpointing": f"{'' if training.gradient_checkpointing else 'no '}gradient checkpointing",
        "sharding": f"sharding={run.sharding.name}",
    }


def named(run: Run) -> str:
    return ", ".join(parts(run).values())
