"""Where a step's time goes, kernel by kernel, and what waits for the GPU: one cell and variant of cells.py in this process.

    python -m benchmarks.speed.profile_cell 8b-lora kernels --bases FOLDER --out PROFILES.jsonl
    python -m benchmarks.speed.profile_cell 1b-lora-mixed kernels --host --bases FOLDER --out PROFILES.jsonl     what the host does instead
    python -m benchmarks.speed.profile_cell 1b-lora-mixed default --clock --bases FOLDER --out PROFILES.jsonl    step by step: computing or waiting

Three steps are traced with the GPU's activities alone, so that the host is not slowed; three others run with torch's warning at every operation that
waits for the GPU, and each place that warned is kept with its count. The share of a kernel is of the wall time of the traced steps; `idle` is the
rest.
"""

import argparse
import cProfile
import gc
import json
import pstats
import resource
import time
import traceback
import warnings
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from benchmarks.speed.cells import CELLS, MODELS, Cell, overrides, write_data
from benchmarks.speed.measure import make_base, surroundings
from conf.run_dir import RunDir, save_run
from launcher.composition.compose import compose
from launcher.gate.judge import judge_run
from trainers.ranks.place import Place

TRACED, WATCHED, STEPS = 8, 14, 3  # first step of each window, and how many
GROUPS = (  # the first part of a name that matches
    ("attention", ("cudnn", "flash", "fmha", "attention", "sdpa")),
    ("matrix products", ("nvjet", "gemm", "cutlass", "xmma", "splitk", "gemv", "cublas")),
    ("dequantising", ("dequant", "kDequantize")),
    ("liger: SwiGLU", ("swiglu",)),
    ("liger: norms", ("rms_norm",)),
    ("liger: rotary", ("rope",)),
    ("loss", ("cross_entropy",)),
    ("optimizer, clipping", ("adam", "multi_tensor", "foreach", "lpnorm")),
    ("copies", ("memcpy", "memset", "copy", "catarray")),
    ("sums and other elementwise", ("elementwise", "reduce", "embedding", "index", "softmax")),
)


class Clock(TrainerCallback):
    """Of every step: its wall time and what the main thread did in it. A slow host computes all the time; one that waits does not."""

    def __init__(self) -> None:
        self.before: dict[str, float] = {}
        self.steps: list[dict[str, float]] = []

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        now = reading()
        if self.before:
            self.steps.append({"step": state.global_step, **{name: round(now[name] - self.before[name], 5) for name in now}})
        self.before = now


def reading() -> dict[str, float]:
    """Seconds and counts since this process began; `stolen` are ticks that the hypervisor gave to others, over all processors."""
    used = resource.getrusage(resource.RUSAGE_THREAD)
    return {
        "wall": time.perf_counter(),
        "thread_cpu": used.ru_utime + used.ru_stime,
        "thread_system": used.ru_stime,
        "process_cpu": time.process_time(),
        "gave_up": used.ru_nvcsw,
        "was_moved": used.ru_nivcsw,
        "faults": used.ru_minflt,
        "stolen": float(Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()[8]),
        "old_collections": gc.get_stats()[2]["collections"],
        "reserved": torch.cuda.memory_reserved() if torch.cuda.is_available() else 0,
    }


class Watch(TrainerCallback):
    def __init__(self, host: bool) -> None:
        self.trace: Any = None
        self.calls = cProfile.Profile() if host else None
        self.seconds, self.tokens = 0.0, 0
        self.waits: Counter[str] = Counter()
        self.began = 0.0

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if state.global_step == TRACED and self.calls is not None:
            self.began = time.perf_counter()
            self.calls.enable()
        elif state.global_step == TRACED and torch.cuda.is_available():
            torch.cuda.synchronize()
            self.trace = profile(activities=[ProfilerActivity.CUDA])
            self.trace.__enter__()
            self.began = time.perf_counter()
        if state.global_step == WATCHED and torch.cuda.is_available():
            torch.cuda.set_sync_debug_mode("warn")
            warnings.simplefilter("always")
            warnings.showwarning = self.note

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if state.global_step == TRACED + STEPS and self.trace is not None:
            torch.cuda.synchronize()
            self.seconds = time.perf_counter() - self.began
            self.trace.__exit__(None, None, None)
        if state.global_step == TRACED + STEPS and self.calls is not None:
            self.calls.disable()
            self.seconds = time.perf_counter() - self.began
        if state.global_step == WATCHED + STEPS and torch.cuda.is_available():
            torch.cuda.set_sync_debug_mode("default")

    def note(self, message: Any, *_: Any, **__: Any) -> None:
        if "synchronizing CUDA operation" in str(message):
            frames = [f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in traceback.extract_stack()[:-2]]
            self.waits[" < ".join(reversed(frames[-6:]))] += 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cell")
    parser.add_argument("variant")
    parser.add_argument("--bases", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("/tmp/regimen-speed"))
    parser.add_argument(
        "--host", action="store_true", help="Python's calls, by cProfile, which slows them; the backward pass runs in the same thread"
    )
    parser.add_argument("--clock", action="store_true", help="clocks of the main thread in every step, in the place of a trace")
    parser.add_argument("--tiny", action="store_true")
    arguments = parser.parse_args()
    cell = next(each for each in CELLS if each.name == arguments.cell)
    if arguments.clock:
        return clocked(cell, arguments)
    watch = Watch(arguments.host)
    torch.autograd.set_multithreading_enabled(not arguments.host)
    train_watched(cell, arguments, watch, WATCHED + STEPS + 2)
    record = {"cell": f"{cell.name}/{arguments.variant}", **report(watch), "surroundings": surroundings()}
    with arguments.out.open("a") as file:
        file.write(json.dumps(record) + "\n")
    for line in record["host"]:
        print(f"  {line['ms']:8.2f} ms {line['calls']:8.1f} x {line['name']}")
    for name, share in record["groups"].items():
        print(f"  {share:6.1%} {name}")
    for kernel in record["kernels"][:16]:
        print(f"  {kernel['share']:6.1%} {kernel['calls']:6.0f} x {kernel['name'][:100]}")
    for place, count in record["waits"].items():
        print(f"  waits {count:.1f} x a step: {place}")
    return 0


def clocked(cell: Cell, arguments: argparse.Namespace) -> int:
    clock = Clock()
    train_watched(cell, arguments, clock, cell.warm_up + cell.steps)
    with arguments.out.open("a") as file:
        file.write(json.dumps({"cell": f"{cell.name}/{arguments.variant}", "clock": clock.steps, "surroundings": surroundings()}) + "\n")
    for step in clock.steps[cell.warm_up :]:
        print("  ".join(f"{name} {value:g}" for name, value in step.items()))
    return 0


def train_watched(cell: Cell, arguments: argparse.Namespace, watch: TrainerCallback, steps: int) -> None:
    base, data = arguments.bases / MODELS[cell.model], arguments.work / "data"
    make_base(cell, base, arguments.tiny)
    write_data(cell, data, 5 * cell.rows * (cell.warm_up + cell.steps + 2))  # as measure.py writes them
    given = overrides(cell, arguments.variant, base, data, arguments.work / "profiles", arguments.tiny)
    if arguments.tiny:
        given = [each for each in given if not each.startswith("training.loss=fused")] + ["node=cpu", "data.cutoff=128"]
    run = judge_run(compose([*given, f"training.max_steps={steps}"])).run
    run_dir = RunDir(arguments.work / "profiles" / f"{cell.name}-{arguments.variant}-{time.time():.0f}" / "once")
    run_dir.path.mkdir(parents=True)
    save_run(run, run_dir)
    from trainers import run as order
    from trainers.stages import sft

    build = sft.build_trainer

    def watched(*given: Any) -> Trainer:
        trainer = build(*given)
        trainer.add_callback(watch)
        return trainer

    sft.build_trainer = watched
    order.save_model = lambda *_: None
    order.close = lambda *_: None
    print(order.train(run, run_dir, Place(0, 0, 1)))


def report(watch: Watch) -> dict[str, Any]:
    if watch.trace is None:
        return {"step_seconds": watch.seconds / STEPS, "host": host_calls(watch.calls), "groups": {}, "kernels": [], "waits": {}}
    events = [event for event in watch.trace.key_averages() if event.self_device_time_total > 0]
    wall = watch.seconds * 1e6
    kernels = [
        {"name": event.key, "share": event.self_device_time_total / wall, "calls": event.count / STEPS, "us": event.self_device_time_total / STEPS}
        for event in sorted(events, key=lambda event: -event.self_device_time_total)
    ]
    groups: defaultdict[str, float] = defaultdict(float)
    for kernel in kernels:
        groups[group_of(kernel["name"])] += kernel["share"]
    groups["idle"] = 1 - sum(groups.values())
    ordered = dict(sorted(groups.items(), key=lambda pair: -pair[1]))
    waits = {place: count / STEPS for place, count in watch.waits.items()}
    return {"step_seconds": watch.seconds / STEPS, "host": [], "groups": ordered, "kernels": kernels[:60], "waits": waits}


def host_calls(calls: cProfile.Profile | None) -> list[dict[str, Any]]:
    """Functions by their own time, without that of what they call; milliseconds and calls a step."""
    if calls is None:
        return []
    rows = sorted(pstats.Stats(calls).stats.items(), key=lambda row: -row[1][2])[:60]
    return [
        {"name": f"{Path(file).name}:{line} {name}", "ms": 1e3 * own / STEPS, "with_called_ms": 1e3 * whole / STEPS, "calls": count / STEPS}
        for (file, line, name), (_, count, own, whole, _) in rows
    ]


def group_of(name: str) -> str:
    return next((group for group, parts in GROUPS if any(part.lower() in name.lower() for part in parts)), "others")


if __name__ == "__main__":
    raise SystemExit(main())
