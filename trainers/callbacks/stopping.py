"""Ends a run early, on the stop file of the run folder or on a signal. All ranks save and stop at the same step."""

import signal
from types import FrameType
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from conf.run_dir import RunDir
from trainers.errors import Stopped
from trainers.ranks.agreement import total
from trainers.ranks.life import LIFE

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


class Stopping(TrainerCallback):
    def __init__(self, run_dir: RunDir) -> None:
        self.run_dir = run_dir
        self.signalled = False
        self.begun = False  # a step has begun, or this rank is ending already
        self.stopped = False
        for number in SIGNALS:
            if signal.getsignal(number) != signal.SIG_IGN:  # SIGTERM in a Slurm job (slurm/train.sbatch.j2): there the stop file alone counts
                signal.signal(number, self.note)
        LIFE.interruptible = True

    def note(self, number: int, frame: FrameType | None) -> None:
        """The handler only sets a flag, because all ranks must save together, at the end of a step. Before the first one there is nothing to save.

        A second signal changes nothing: Slurm signals a rank, and its agent does so again. The supervisor ends the ranks at a second request.

        Raises:
            Stopped: before the first step, once.
        """
        self.signalled = True
        if not self.begun:
            self.begin()
            raise Stopped(self.run_dir.stop.exists())

    def begin(self) -> None:
        self.begun, LIFE.interruptible = True, False

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.begin()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.begin()
        asked = self.signalled or self.run_dir.stop.exists()
        if total(torch.tensor([float(asked)]))[0] > 0 and state.global_step < state.max_steps:
            self.stopped = True
            control.should_save = True
            control.should_training_stop = True
