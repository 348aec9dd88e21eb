"""Ends a run early, on the stop file of the run folder or on a signal. All ranks save and stop at the same step."""

import signal
from types import FrameType
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from conf.run_dir import RunDir
from trainers.ranks.agreement import total

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


class Stopping(TrainerCallback):
    def __init__(self, run_dir: RunDir) -> None:
        self.run_dir = run_dir
        self.signalled = False
        self.stopped = False
        for number in SIGNALS:
            signal.signal(number, self.note)

    def note(self, number: int, frame: FrameType | None) -> None:
        """The handler only sets a flag, because all ranks must save together, at the end of a step."""
        self.signalled = True

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        asked = self.signalled or self.run_dir.stop.exists()
        if total(torch.tensor([float(asked)]))[0] > 0 and state.global_step < state.max_steps:
            self.stopped = True
            control.should_save = True
            control.should_training_stop = True
