"""What a run will need: steps, tokens, disk, wall time, each with what it was counted from."""

from dataclasses import asdict, dataclass
from math import ceil
from typing import Any

from conf.ranks import ranks
from conf.schema import Run
from launcher.errors import DataError
from launcher.facts.data import trained_samples
from launcher.facts.model import ModelFacts
from launcher.gate.throughput import step_flops
from launcher.memory.estimate import MemoryEstimate
from launcher.memory.stages import sample_tokens
from launcher.rules.rewards import refuse_too_few_prompts, steps_of_an_epoch
from launcher.words import plural

ASSUMED_MFU = 0.4  # of the vendor's dense peak; measured runs of the field lie between 0.3 and 0.5


@dataclass(frozen=True)
class Expectations:
    samples: int | None  # training samples; None: not known before the data is read
    steps: int | None
    tokens: int | None  # an upper bound: every sample as long as data.cutoff
    disk: int  # bytes of the checkpoints that are kept and of the final model
    seconds: float | None
    flops_per_token: float  # model FLOP of one trained token, recomputation not counted
    peak_flops: float | None  # FLOP/s of all GPUs of the run
    sources: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def expect(run: Run, facts: ModelFacts, predicted: MemoryEstimate) -> Expectations:
    trained = trained_samples(run)
    steps = expected_steps(run, trained)
    step_tokens = run.training.effective_batch * sample_tokens(run)
    flops = step_flops(facts, run, step_tokens)
    peak = None if not (run.node.gpus and run.node.tflops) else run.node.tflops * 1e12 * ranks(run)
    seconds = None if steps is None or peak is None else steps * flops.hardware / (peak * ASSUMED_MFU)
    return Expectations(
        samples=trained,
        steps=steps,
        tokens=None if steps is None else steps * step_tokens,
        disk=predicted.disk,
        seconds=seconds,
        flops_per_token=flops.model / step_tokens,
        peak_flops=peak,
        sources=sources(run, trained, steps, peak),
    )


def refuse_too_few(run: Run, samples: int | None) -> None:
    """Every rank needs one whole micro batch; only the trainers know what packing or the cutoff removes.

    Raises:
        DataError: when there are surely fewer.
    """
    count = ranks(run)
    if samples is not None and samples < count * run.training.micro_batch:
        raise DataError(
            f"{samples} training samples are fewer than one batch: {plural(count, 'rank')} x training.micro_batch="
            f"{run.training.micro_batch}. Lower training.micro_batch, use fewer ranks, or give more data."
        )
    if samples is not None:
        refuse_too_few_prompts(run, samples)


def expected_steps(run: Run, samples: int | None) -> int | None:
    if run.training.max_steps is not None:
        return run.training.max_steps
    if samples is None or run.data.packing:
        return None
    return ceil(run.training.epochs * steps_of_an_epoch(run, samples))


def sources(run: Run, samples: int | None, steps: int | None, peak: float | None) -> tuple[str, ...]:
    """What each figure was counted from, or why there is none."""
    counted = "not known before the data is read" if samples is None else f"{samples} samples in {', '.join(run.data.sets)}"
    if run.training.max_steps is not None:
        counted = "training.max_steps"
    elif samples is not None and steps is None:
        counted = "not known before rows are packed"
    tokens = () if steps is None else (f"tokens: an upper bound, with every sample {run.data.cutoff} tokens long",)
    if peak is None:
        rate = "not known, because node.tflops of this node is not"
    else:
        rate = f"{ASSUMED_MFU:.0%} of the GPUs' dense bf16 peak" if steps is not None else "not known without the number of steps"
    return (f"steps: {counted}", *tokens, f"time: {rate}")
