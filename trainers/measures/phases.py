"""Measures the highest GPU memory of every phase of a step. Hooks on the whole model and on the optimizer are the borders.

The first step allocates the optimizer's states and cuBLAS' workspace in the middle of its phases: it counts as `warm-up`, the rest from step 2 on.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

WARM_UP = "warm-up"
OUTSIDE_OF_STEPS = ("load", "resume")
ELSEWHERE = "elsewhere"  # between the phases: batches on their way to the GPU, logging, an answer generated


class Reading(NamedTuple):
    """Bytes."""

    allocated: int
    reserved: int


Meter = Callable[[], Reading]  # the highest since the last call


def cuda_meter() -> Reading:
    """Reads only the allocator on the host, and does not wait for the GPU."""
    statistics = torch.cuda.memory_stats_as_nested_dict()  # five times a step: memory_stats would flatten and sort them all
    torch.cuda.reset_peak_memory_stats()
    return Reading(statistics["allocated_bytes"]["all"]["peak"], statistics["reserved_bytes"]["all"]["peak"])


class Peaks:
    """The highest reading of each phase, and of all together."""

    def __init__(self, meter: Meter) -> None:
        self.meter = meter
        self.settled = False
        self.by_phase: dict[str, int] = {}
        self.highest = Reading(0, 0)

    def end(self, phase: str) -> None:
        """What was the highest since the last border belongs to `phase`, which ends here."""
        reading = self.meter()
        name = phase if self.settled or phase in OUTSIDE_OF_STEPS else WARM_UP
        self.by_phase[name] = max(self.by_phase.get(name, 0), reading.allocated)
        self.highest = Reading(*map(max, self.highest, reading))


class Phases(TrainerCallback):
    def __init__(self, peaks: Peaks) -> None:
        self.peaks = peaks
        self.evaluating = False
        self.answering = False

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, optimizer: Any = None, **_: Any
    ) -> None:
        """Everything is wrapped by now; a resumed run has read its optimizer's states too."""
        self.peaks.end("resume" if state.global_step else "load")
        model.register_forward_pre_hook(self.before_forward)
        model.register_forward_hook(self.after_forward)
        bracket_step(optimizer.optimizer, lambda: self.peaks.end("backward"), lambda: self.peaks.end("optimizer step"))

    def before_forward(self, module: torch.nn.Module, *_: Any) -> None:
        if self.answering:
            return
        if module.training or not self.evaluating:
            self.peaks.end(ELSEWHERE)
        self.evaluating = not module.training

    def after_forward(self, module: torch.nn.Module, *_: Any) -> None:
        if module.training and not self.answering:
            self.peaks.end("forward")

    def on_substep_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.peaks.end("backward")

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.peaks.end(ELSEWHERE)
        self.peaks.settled = True

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.peaks.end("evaluation")
        self.evaluating = False

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.peaks.end("save")


@contextmanager
def answering(callbacks: Iterable[TrainerCallback]) -> Iterator[None]:
    """What happens inside, answers written and judged, is one phase, `generation`, however many forward passes it needs."""
    phases = [callback for callback in callbacks if isinstance(callback, Phases)]
    for watcher in phases:
        watcher.peaks.end(ELSEWHERE)
        watcher.answering = True
    yield
    for watcher in phases:
        watcher.peaks.end("generation")
        watcher.answering = False


def bracket_step(optimizer: Any, before: Callable[[], None], after: Callable[[], None]) -> None:
    """Call `before` and `after` around every step. DeepSpeed's optimizers are not torch optimizers and have no hooks."""
    if isinstance(optimizer, torch.optim.Optimizer):
        optimizer.register_step_pre_hook(lambda *_: before())
        optimizer.register_step_post_hook(lambda *_: after())
        return
    step = optimizer.step

    def bracketed(*arguments: Any, **keywords: Any) -> Any:
        before()
        result = step(*arguments, **keywords)
        after()
        return result

    optimizer.step = bracketed
