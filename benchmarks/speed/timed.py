"""One rank that trains when its GPU is its own: `python timed.py LOCK RUN_FOLDER`, in the place of `python -m trainers RUN_FOLDER`.

Libraries, data and unquantised weights are ready before it waits; it holds LOCK until its process has ended, and saves nothing.
"""

import fcntl
import os
import sys
import time
from pathlib import Path
from typing import Any, TextIO

from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

import trainers.building
import trainers.run
from conf.schema import Qlora, Run
from trainers.__main__ import main
from trainers.model.prepared import PreparedModel

LEAST_STEPS, SECONDS = 5, 3.0  # two that warm up and three to time; quick jobs make more, up to training.max_steps


class Enough(TrainerCallback):
    """Ends training once enough steps were timed, and the process with it."""

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.began = time.monotonic()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        control.should_training_stop |= state.global_step >= LEAST_STEPS and time.monotonic() - self.began > SECONDS

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        os._exit(0)


class Turn:
    """Waits for the lock of a GPU once; the kernel gives it back when the process has ended."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.held: TextIO | None = None

    def wait(self) -> None:
        if self.held is None:
            self.held = self.path.open("w")
            fcntl.flock(self.held, fcntl.LOCK_EX)


if __name__ == "__main__":
    turn, prepare, build = Turn(Path(sys.argv.pop(1))), trainers.building.prepare_model, trainers.run.build

    def prepare_and_wait(run: Run, *others: Any) -> PreparedModel:
        if isinstance(run.regime, Qlora):  # quantised on the GPU
            turn.wait()
        prepared = prepare(run, *others)
        turn.wait()
        return prepared

    def build_timed(*given: Any) -> Trainer:
        trainer = build(*given)
        trainer.add_callback(Enough())
        return trainer

    trainers.building.prepare_model, trainers.run.build = prepare_and_wait, build_timed
    os._exit(main())
