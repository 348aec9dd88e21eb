"""One rank of a scaling cell: `python scaling_rank.py ORDER.json RUN_FOLDER`, in the place of `python -m trainers RUN_FOLDER`.

ORDER.json: {ready, go, result: paths without the rank's number, changes, warm_up, steps, traced}. Its weights are there before it says ready, and it
trains once `go` exists. It writes the seconds of its steps, and rank 0 what `traced` more steps spent their time on; nothing is saved.
"""

import itertools
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.fsdp import FSDPModule
from torch.nn.parallel import DistributedDataParallel
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

import trainers.building
import trainers.run
from benchmarks.speed.scaling_trace import kernels_of, summed_up
from conf.schema import Run
from trainers.__main__ import main
from trainers.callbacks.engine_steps import EngineSteps
from trainers.measures.phases import Phases
from trainers.model.prepared import PreparedModel

POLL_SECONDS, LONGEST_WAIT = 0.02, 900.0
NVLINK = ("NCCL_NVLS_ENABLE", "TORCH_SYMM_MEM_DISABLE_MULTICAST", "NVSHMEM_DISABLE_NVLS")


class Clock(TrainerCallback):
    """The time of each step where it is worked on: on a GPU by events in its queue. Every rank makes the same steps. Ends the process after them."""

    def __init__(self, order: dict[str, Any], rank: int, trainer: Trainer) -> None:
        self.order, self.rank, self.trainer = order, rank, trainer
        self.marks = list[Any]()
        self.trace: Any = None
        self.traced_seconds, self.began = 0.0, 0.0

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **_: Any) -> None:
        if "ahead" in self.order["changes"]:
            gather_ahead(model, self.order["changes"]["ahead"])

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        timed = self.order["warm_up"] + self.order["steps"]
        if self.order["warm_up"] <= state.global_step <= timed:
            self.marks.append(mark())
        if state.global_step == timed:
            self.begin_trace()
        if state.global_step == timed + self.order["traced"]:
            self.end_trace()
            control.should_training_stop = True

    def begin_trace(self) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
            if self.rank == 0 and self.order["traced"]:
                self.trace = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA])
                self.trace.__enter__()
        self.began = time.perf_counter()

    def end_trace(self) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.traced_seconds = time.perf_counter() - self.began
        if self.trace is not None:
            self.trace.__exit__(None, None, None)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        found = {
            "step_seconds": step_seconds(self.marks),
            **peaks_of(self.trainer),
            "losses": [entry["loss"] for entry in state.log_history if "loss" in entry],
            "engine": engine_of(self.trainer),
            "environment": {name: os.environ.get(name) for name in NVLINK},
        }
        Path(f"{self.order['result']}-{self.rank}").write_text(json.dumps(found))
        if self.trace is not None:  # the times are safe before it is read
            profile = summed_up(kernels_of(self.trace), self.traced_seconds, self.order["traced"])
            Path(f"{self.order['result']}-profile").write_text(json.dumps(profile))
        os._exit(0)


def mark() -> Any:
    if not torch.cuda.is_available():
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def step_seconds(marks: list[Any]) -> list[float]:
    pairs = list(itertools.pairwise(marks))
    if not torch.cuda.is_available():
        return [later - earlier for earlier, later in pairs]
    torch.cuda.synchronize()
    return [earlier.elapsed_time(later) / 1e3 for earlier, later in pairs]


def peaks_of(trainer: Trainer) -> dict[str, Any]:
    """Bytes, the highest of all and of each phase, as the run itself measures them."""
    phases = next((each for each in trainer.callback_handler.callbacks if isinstance(each, Phases)), None)
    return {"allocated": phases.peaks.highest.allocated, "phases": phases.peaks.by_phase} if phases else {"allocated": 0, "phases": {}}


def engine_of(trainer: Trainer) -> dict[str, Any]:
    """What the wrapper really uses."""
    plugin, wrapped = trainer.accelerator.state.deepspeed_plugin, trainer.model_wrapped
    if plugin is not None:
        return {"zero_optimization": {name: value for name, value in plugin.deepspeed_config["zero_optimization"].items() if value is not None}}
    return {"wrapper": type(wrapped).__name__, "gradient_as_bucket_view": getattr(wrapped, "gradient_as_bucket_view", None)}


def apply(changes: dict[str, Any], trainer: Trainer) -> None:
    """`zero`: keys of DeepSpeed's zero_optimization; `ddp`: arguments of DistributedDataParallel; `ahead`: see gather_ahead.

    `wrapped`: one rank in the wrapper that several have; `waiting`: without what trainers/callbacks/engine_steps.py does.
    """
    if "zero" in changes:
        trainer.accelerator.state.deepspeed_plugin.deepspeed_config["zero_optimization"] |= changes["zero"]
    if "waiting" in changes:
        trainer.pop_callback(EngineSteps)
    if "waiting" in changes and trainer.is_deepspeed_enabled:
        config = trainer.accelerator.state.deepspeed_plugin.deepspeed_config
        config["timers"], config["bf16"]["check_grad_overflow"] = {}, True
    if "wrapped" in changes:
        wrap(trainer)
    for name, value in changes.get("ddp", {}).items():
        setattr(trainer.accelerator.ddp_handler, name, value)


def wrap(trainer: Trainer) -> None:
    """What accelerate does with two ranks."""
    prepare = trainer.accelerator.prepare_model
    if not dist.is_initialized():
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")

    def prepare_wrapped(model: torch.nn.Module, *given: Any, **named: Any) -> torch.nn.Module:
        prepared = prepare(model, *given, **named)
        return prepared if isinstance(prepared, DistributedDataParallel) else DistributedDataParallel(prepared, gradient_as_bucket_view=True)

    trainer.accelerator.prepare_model = prepare_wrapped


def gather_ahead(model: torch.nn.Module, count: int) -> None:
    """Under FSDP2 so many layers are asked for before one runs, where it asks for one by itself."""
    layers = [module for module in model.modules() if isinstance(module, FSDPModule) and type(module).__name__.endswith("DecoderLayer")]
    for number, layer in enumerate(layers):
        layer.set_modules_to_forward_prefetch(layers[number + 1 : number + 1 + count])
        layer.set_modules_to_backward_prefetch(layers[max(0, number - count) : number][::-1])


def wait_for_turn(order: dict[str, Any], rank: int) -> None:
    """Raises TimeoutError where nobody gives it."""
    Path(f"{order['ready']}-{rank}").touch()
    began = time.monotonic()
    while not Path(order["go"]).exists():
        if time.monotonic() - began > LONGEST_WAIT:
            raise TimeoutError(f"no turn came in {LONGEST_WAIT:.0f} s")
        time.sleep(POLL_SECONDS)


def measure() -> int:
    order, rank = json.loads(Path(sys.argv.pop(1)).read_text()), int(os.environ["RANK"])
    prepare, build = trainers.building.prepare_model, trainers.run.build

    def prepare_and_wait(run: Run, *others: Any) -> PreparedModel:
        prepared = prepare(run, *others)
        wait_for_turn(order, rank)
        return prepared

    def build_timed(*given: Any) -> Trainer:
        trainer = build(*given)
        apply(order["changes"], trainer)
        trainer.add_callback(Clock(order, rank, trainer))
        return trainer

    trainers.building.prepare_model, trainers.run.build = prepare_and_wait, build_timed
    return main()


if __name__ == "__main__":
    os._exit(measure())
