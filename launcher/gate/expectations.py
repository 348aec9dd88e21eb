"""What a run will need: steps, tokens, disk, wall time, each with what it was counted from."""

from dataclasses import dataclass, fields
from math import ceil
from typing import Any

from conf.ranks import ranks
from conf.schema import Run
from launcher.errors import DataError
from launcher.facts.data import trained_samples
from launcher.facts.model import ModelFacts
from launcher.memory.estimate import MemoryEstimate
from launcher.memory.stages import sample_tokens
from launcher.rules.rewards import refuse_too_few_prompts, steps_of_an_epoch
from launcher.timing.operations import step_flops
from launcher.timing.step import StepTime, step_time
from launcher.words import plural


@dataclass(frozen=True)
class Expectations:
    samples: int | None  # training samples; None: not known before the data is read
    steps: int | None
    tokens: int | None  # an upper bound: every sample as long as data.cutoff
    disk: int  # bytes of the checkpoints that are kept and of the final model
    step: StepTime
    flops_per_token: float  # model FLOP of one trained token, recomputation not counted
    peak_flops: float | None  # FLOP/s of all GPUs of the run
    sources: tuple[str, ...]

    @property
    def latest(self) -> float | None:
        """`seconds` at the upper end of their range."""
        return None if self.steps is None or self.step.missing else self.steps * self.step.high

    @property
    def seconds(self) -> float | None:
        """Of all steps, without start, evaluations and checkpoints. None where steps or a term of their time are not known."""
        return None if self.steps is None or self.step.missing else self.steps * self.step.seconds

    def as_dict(self) -> dict[str, Any]:
        """For programs; sizes are bytes, times seconds."""
        return {
            **{field.name: getattr(self, field.name) for field in fields(self)},
            "sources": list(self.sources),
            "step": self.step.as_dict(),
            "seconds": self.seconds,
        }


def expect(run: Run, facts: ModelFacts, predicted: MemoryEstimate) -> Expectations:
    trained = trained_samples(run)
    steps = expected_steps(run, trained)
    step_tokens = run.training.effective_batch * sample_tokens(run)
    flops = step_flops(facts, run, step_tokens)
    peak = None if not (run.node.gpus and run.node.tflops) else run.node.tflops * 1e12 * ranks(run)
    return Expectations(
        samples=trained,
        steps=steps,
        tokens=None if steps is None else steps * step_tokens,
        disk=predicted.disk,
        step=step_time(run, facts),
        flops_per_token=flops.model / step_tokens,
        peak_flops=peak,
        sources=sources(run, trained, steps),
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


def sources(run: Run, samples: int | None, steps: int | None) -> tuple[str, ...]:
    """What each figure was counted from, or why there is none."""
    counted = "not known before the data is read" if samples is None else f"{samples} samples in {', '.join(run.data.sets)}"
    if run.training.max_steps is not None:
        counted = "training.max_steps"
    elif samples is not None and steps is None:
        counted = "not known before rows are packed"
    tokens = () if steps is None else (f"tokens: an upper bound, with every sample {run.data.cutoff} tokens long",)
    return (f"steps: {counted}", *tokens)
