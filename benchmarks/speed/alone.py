"""One run timed in a process of its own that finds its libraries loaded: a fork of one that has loaded them, or where that fails a fresh one.

python -m benchmarks.speed.alone RUN_FOLDER RESULT.json      a fresh one
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

WARM_UP, STEPS, LEAST, SECONDS = 3, 8, 4, 3.0  # steps before those that count, those, and how few are enough once they took so many seconds
POLL_SECONDS = 0.05


class Clock(TrainerCallback):
    """The time of each step where it is worked on: on a GPU by events in its queue, which hold nothing up. Ends the process after the last."""

    def __init__(self, result: Path) -> None:
        self.result, self.marks, self.began = result, list[Any](), 0.0

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
        done = len(self.marks) - 1
        control.should_training_stop |= done >= STEPS or (done >= LEAST and time.monotonic() - self.began > SECONDS)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.result.write_text(json.dumps({"step_seconds": self.step_seconds(), **peak()}))
        os._exit(0)

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
    """Nothing here may touch a GPU: CUDA does not outlive a fork."""
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"  # is_available asks the driver's management library instead of starting CUDA
    import datasets  # noqa: F401
    import peft  # noqa: F401
    import trl  # noqa: F401

    import trainers.run
    import trainers.stages.dpo
    import trainers.stages.pt
    import trainers.stages.sft  # noqa: F401


def timed(run_folder: Path, result: Path) -> int:
    """The rank of a run, with a clock. It writes `result` and ends with 0; else what the rank ends with."""
    import trainers.run
    from trainers.__main__ import main

    build = trainers.run.build

    def build_timed(*given: Any) -> Trainer:
        trainer = build(*given)
        trainer.add_callback(Clock(result))
        return trainer

    trainers.run.build = build_timed
    sys.argv = ["trainers", str(run_folder)]
    return main()


def started(run_folder: Path, result: Path, environment: Mapping[str, str], fresh: bool) -> int:
    """Its pid. The environment is what the agent of a run of one rank would give it."""
    port = free_port()
    rank = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    if fresh:
        argv = [sys.executable, "-m", "benchmarks.speed.alone", str(run_folder), str(result)]
        return subprocess.Popen(argv, env={**environment, **rank}).pid
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.environ.update({**environment, **rank})
            code = timed(run_folder, result)
        finally:
            os._exit(code)
    return pid


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def ended(pid: int, seconds: float) -> int:
    """Its exit code; 124 where it was killed after so long."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(POLL_SECONDS)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return 124


if __name__ == "__main__":
    code = timed(Path(sys.argv[1]), Path(sys.argv[2]))
    os._exit(code)
