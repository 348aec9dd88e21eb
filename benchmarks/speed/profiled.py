"""One run profiled in a process of its own: `python -m benchmarks.speed.profiled`, which profile_steps.py starts in the place of alone.py.

Of the steps after those that warm up, some are timed as alone.py times them, two are traced with the GPU's activities alone, one with every operation
of torch, and one with every call of Python (cProfile, which slows it: its counts are exact, its times are shares).
"""

import cProfile
import os
import pstats
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile
from transformers import Trainer, TrainerControl, TrainerState, TrainingArguments

from benchmarks.speed import alone
from benchmarks.speed.profile_cell import reading

TIMED = range(alone.WARM_UP + 1, alone.WARM_UP + 5)  # steps by their number, from 1
TRACED = range(TIMED.stop, TIMED.stop + 2)
OPERATIONS, CALLS = TRACED.stop, TRACED.stop + 1
LONGEST_NAME, ROWS = 90, 60
GAPS = (1, 2, 5, 10, 20, 50, 100, 1000)  # microseconds


class Profile(alone.Clock):
    """Times steps, then looks into the next ones, and ends the process."""

    def __init__(self, result: Path) -> None:
        super().__init__(result)
        self.hosts: defaultdict[str, float] = defaultdict(float)  # seconds of the host in the timed steps, by part
        self.at: dict[str, float] = {}
        self.before: dict[str, float] = {}
        self.counting = False
        self.trace: Any = None
        self.calls = cProfile.Profile()
        self.found: dict[str, Any] = {}

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        step = state.global_step + 1
        if step in (TIMED.start, TRACED.start, OPERATIONS, CALLS):
            synchronised()
        if step == TIMED.start:
            self.marks, self.before, self.counting = [self.mark()], reading(), True
        if step == TRACED.start:
            self.trace = traced(ProfilerActivity.CUDA)
        if step == OPERATIONS:
            self.trace = traced(ProfilerActivity.CPU, ProfilerActivity.CUDA)
        self.began = time.perf_counter()
        if step == CALLS:
            self.calls.enable()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        step = state.global_step
        if step in TIMED:
            self.marks.append(self.mark())
        if step == TIMED[-1]:
            self.counting = False
            now = reading()
            self.found["process"] = {name: (now[name] - self.before[name]) / len(TIMED) for name in now}
        if step == TRACED[-1]:
            self.found["gpu"] = activities(closed(self.trace), len(TRACED))
        if step == OPERATIONS:
            self.found["operations"] = operations(closed(self.trace))
        if step == CALLS:
            self.calls.disable()
            self.found["calls"] = python_calls(self.calls)
            control.should_training_stop = True

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        import json

        hosts = {name: seconds / len(TIMED) for name, seconds in self.hosts.items()}
        self.result.write_text(json.dumps({"step_seconds": self.step_seconds(), "host_seconds": hosts, **self.found, **alone.peak()}))
        os._exit(0)

    def count(self, trainer: Trainer) -> None:
        """Seconds of the host in the parts of a step; what is left of a step are the loop and its callbacks."""
        for owner, name in (
            (trainer, "get_batch_samples"),
            (trainer, "compute_loss"),
            (trainer.accelerator, "backward"),
            (trainer, "_clip_grad_norm"),
            (trainer, "_maybe_log_save_evaluate"),
        ):
            setattr(owner, name, partial(self.counted, name, getattr(owner, name)))

    def counted(self, name: str, act: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
        began = time.perf_counter()
        try:
            return act(*arguments, **keywords)
        finally:
            if self.counting:
                self.hosts[name] += time.perf_counter() - began


def traced(*wanted: ProfilerActivity) -> Any:
    there = wanted if torch.cuda.is_available() else (ProfilerActivity.CPU,)
    trace = profile(activities=there)
    trace.__enter__()
    return trace


def closed(trace: Any) -> Any:
    synchronised()
    trace.__exit__(None, None, None)
    return trace


def synchronised() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def activities(trace: Any, steps: int) -> dict[str, Any]:
    """Of one step: kernels, copies and fills of the GPU, how long it works and waits between them; and the host's calls to start them."""
    events = trace.profiler.kineto_results.events()
    on_gpu = sorted((event for event in events if event.device_type() == torch.autograd.DeviceType.CUDA), key=lambda event: event.start_ns())
    host: defaultdict[str, list[float]] = defaultdict(list)
    for event in events:
        if event.device_type() == torch.autograd.DeviceType.CPU and event.name().startswith(("cuda", "cu")):
            host[event.name()].append(event.duration_ns() / 1e3)
    busy, waited, until = 0.0, Counter[int](), 0
    gaps: defaultdict[int, float] = defaultdict(float)
    for event in on_gpu:
        start, end = event.start_ns(), event.start_ns() + event.duration_ns()
        if until and start > until:
            gap = (start - until) / 1e3
            limit = next((limit for limit in GAPS if gap <= limit), 0)
            waited[limit] += 1
            gaps[limit] += gap
        busy += max(0, end - max(start, until)) / 1e9
        until = max(until, end)
    named: defaultdict[str, list[float]] = defaultdict(list)
    for event in on_gpu:
        named[event.name()].append(event.duration_ns() / 1e3)
    moves = sum(len(times) for name, times in named.items() if name.startswith(("Memcpy", "Memset")))
    span = (on_gpu[-1].start_ns() + on_gpu[-1].duration_ns() - on_gpu[0].start_ns()) / 1e9 if on_gpu else 0.0
    return {
        "kernels": (len(on_gpu) - moves) / steps,
        "copies": moves / steps,
        "span": span / steps,
        "busy": busy / steps,
        "gaps": {f"up to {limit} us" if limit else "longer": [waited[limit] / steps, gaps[limit] / 1e3 / steps] for limit in (*GAPS, 0)},
        "host": {name: [len(times) / steps, sum(times) / 1e3 / steps] for name, times in sorted(host.items(), key=lambda pair: -sum(pair[1]))},
        "by_kernel": [
            {"name": name[:LONGEST_NAME], "count": len(times) / steps, "ms": sum(times) / 1e3 / steps}
            for name, times in sorted(named.items(), key=lambda pair: -len(pair[1]))[:ROWS]
        ],
    }


def operations(trace: Any) -> list[dict[str, Any]]:
    """Of one step: operations of torch by what the host spent in each itself."""
    rows = sorted(trace.key_averages(), key=lambda row: -row.self_cpu_time_total)[:ROWS]
    return [{"name": row.key[:LONGEST_NAME], "count": row.count, "host_ms": row.self_cpu_time_total / 1e3} for row in rows]


def python_calls(calls: cProfile.Profile) -> list[dict[str, Any]]:
    """Of one step: functions by their own time."""
    rows = sorted(pstats.Stats(calls).stats.items(), key=lambda row: -row[1][2])[:ROWS]  # type: ignore[attr-defined]
    return [
        {"name": f"{Path(file).name}:{line} {name}"[:LONGEST_NAME], "count": count, "ms": 1e3 * own, "with_called_ms": 1e3 * whole}
        for (file, line, name), (_, count, own, whole, _) in rows
    ]


if __name__ == "__main__":
    os._exit(alone.main(Profile))
