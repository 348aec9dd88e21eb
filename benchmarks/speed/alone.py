"""One run timed in a process of its own, which has loaded its libraries before and waited for its turn: `python -m benchmarks.speed.alone`.

It says `ready`, reads one line of JSON {folder, result, environment, way}, trains that run, in that way of ways.py if one is named, and writes the
seconds of its steps.
"""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from benchmarks.speed.host_speed import host_speed
from benchmarks.speed.ways import AS_IT_IS, WAYS
from launcher.facts.host_speed import look

WARM_UP, STEPS, LEAST, SECONDS = 3, 24, 4, 2.0  # steps before those that count, those, and how few are enough once they took so many seconds
READY = "ready"


class Clock(TrainerCallback):
    """The time of each step where it is worked on: on a GPU by events in its queue, which hold nothing up. Ends the process after the last."""

    def __init__(self, result: Path) -> None:
        self.result, self.marks, self.began = result, list[Any](), 0.0
        self.speeds: list[dict[str, float]] = []  # of the host, before and after the steps
        self.turns: list[float] = []  # ns of a turn in Python, after each of the steps that count; a look takes half a millisecond

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.speeds.append(host_speed())

    def mark(self) -> Any:
        import torch

        if not torch.cuda.is_available():
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if state.global_step == WARM_UP:
            self.began = time.monotonic()
        if state.global_step >= WARM_UP:
            self.marks.append(self.mark())
            self.turns.append(look())
        done = len(self.marks) - 1
        control.should_training_stop |= done >= STEPS or (done >= LEAST and time.monotonic() - self.began > SECONDS)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        steps = self.step_seconds()
        self.speeds.append(host_speed())
        self.result.write_text(json.dumps({"step_seconds": steps, "host_speeds": self.speeds, "python_turns": self.turns, **peak()}))
        os._exit(0)

    def count(self, trainer: Trainer) -> None:
        """What else of `trainer` is to be timed: of steps alone, nothing."""

    def step_seconds(self) -> list[float]:
        import torch

        if not torch.cuda.is_available():
            return [later - earlier for earlier, later in zip(self.marks, self.marks[1:], strict=False)]
        torch.cuda.synchronize()
        return [earlier.elapsed_time(later) / 1e3 for earlier, later in zip(self.marks, self.marks[1:], strict=False)]


def peak() -> dict[str, int]:
    import torch

    return {"allocated": torch.cuda.max_memory_allocated()} if torch.cuda.is_available() else {}


def load_libraries() -> None:
    """What takes ten seconds and the processor, before anything is timed."""
    import datasets  # noqa: F401
    import peft  # noqa: F401
    import trl  # noqa: F401

    import trainers.run
    import trainers.stages.dpo
    import trainers.stages.pt
    import trainers.stages.sft  # noqa: F401


def timed(run_folder: Path, clock: Clock) -> int:
    """The rank of a run, with a clock, which ends it with 0; else what the rank ends with."""
    import trainers.run
    from trainers.__main__ import main

    build = trainers.run.build

    def build_timed(*given: Any) -> Trainer:
        trainer = build(*given)
        clock.count(trainer)
        trainer.add_callback(clock)
        return trainer

    trainers.run.build = build_timed
    sys.argv = ["trainers", str(run_folder)]
    return main()


def waiting(module: str = "benchmarks.speed.alone") -> "subprocess.Popen[str]":
    """A process of `module` that loads its libraries. Its environment is what the agent of a run of one rank would give it."""
    rank = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    argv = [sys.executable, "-m", module]
    return subprocess.Popen(argv, env={**os.environ, **rank}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def until_ready(process: "subprocess.Popen[str]") -> None:
    """Raises RuntimeError where it ends before."""
    assert process.stdout is not None
    if not any(line.strip() == READY for line in process.stdout):
        raise RuntimeError(f"a process that was to train ended with {process.wait()} while it loaded its libraries")


def trained(process: "subprocess.Popen[str]", run_folder: Path, result: Path, environment: Mapping[str, str], seconds: float, **more: str) -> int:
    """The exit code of a ready process for this run; 124 where it was killed after so long."""
    assert process.stdin is not None
    process.stdin.write(json.dumps({"folder": str(run_folder), "result": str(result), "environment": dict(environment), **more}) + "\n")
    process.stdin.flush()
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return 124


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def main(clock: type[Clock] = Clock) -> int:
    load_libraries()
    print(READY, flush=True)
    said = sys.stdin.readline()
    if not said:  # no run is left for it
        return 0
    order = json.loads(said)
    os.environ.update(order["environment"])
    WAYS[order.get("way", AS_IT_IS)][0]()
    return timed(Path(order["folder"]), clock(Path(order["result"])))


if __name__ == "__main__":
    os._exit(main())
