"""Ends a run early, on the stop file of the run folder or on a signal. All ranks save and stop at the same step."""

import json
import random
import signal
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import numpy
import torch
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME

from conf.run_dir import RunDir
from conf.signs import SAVING
from trainers.callbacks.committing import Committing
from trainers.errors import Left, Stopped
from trainers.ranks.life import LIFE
from trainers.ranks.stop import REQUESTS, asked_anywhere

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


class Stopping(TrainerCallback):
    """A step is finished and then saved. What comes after it, evaluations, answers and commits, is left between two of its parts (ranks/stop.py)."""

    def __init__(self, run_dir: RunDir) -> None:
        self.run_dir = run_dir
        self.begun = False  # a step has begun, or this rank is ending already
        self.stopped = False
        self.drawn: Callable[[], None] | None = None  # within a step: sets back what it has drawn of random numbers
        REQUESTS.begin(run_dir.stop)
        for number in SIGNALS:
            # SIGTERM is ignored in a Slurm job (slurm/train.sbatch.j2): there the stop file alone counts.
            if number != signal.SIGTERM or signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self.note)
        LIFE.interruptible = True

    def note(self, number: int, frame: FrameType | None) -> None:
        """The handler only sets a flag, because all ranks must save together. Before the first step there is nothing to save.

        A second signal changes nothing: Slurm signals a rank, and its agent does so again. The supervisor ends the ranks at a second request.

        Raises:
            Stopped: before the first step, once.
        """
        REQUESTS.signalled = True
        if not self.begun:
            self.begin()
            raise Stopped(self.run_dir.stop.exists())

    def begin(self) -> None:
        self.begun, LIFE.interruptible = True, False

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.begin()
        self.drawn = random_state()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.begin()
        self.drawn = None
        if asked_anywhere() and state.global_step < state.max_steps:
            self.stopped = True
            control.should_save = True
            control.should_training_stop = True

    def until_asked(self, train: Callable[[], object], save: Callable[[], None], trainer: Trainer) -> None:
        """Train to the end, or until the ranks leave it; then the last finished step is saved, unless it is already. A collective act."""
        try:
            train()
        except Left:
            self.stopped = True
            step = trainer.state.global_step
            if step and not self.run_dir.checkpoint(step).exists():
                LIFE.enter(SAVING)
                if self.drawn is not None:
                    self.drawn()
                save()


def random_state() -> Callable[[], None]:
    """A function that sets all generators that a step draws from back to where they are now."""
    plain, arrays, tensors = random.getstate(), numpy.random.get_state(), torch.get_rng_state()
    device = torch.cuda.get_rng_state() if torch.cuda.is_available() else None

    def set_back() -> None:
        random.setstate(plain)
        numpy.random.set_state(arrays)
        torch.set_rng_state(tensors)
        if device is not None:
            torch.cuda.set_rng_state(device)

    return set_back


def save_step(trainer: Trainer) -> None:
    """The step at which `trainer` stands, written and committed as at any other save."""
    handler = trainer.callback_handler
    for committing in handler.callbacks:
        if isinstance(committing, Committing):
            committing.look_for_room()
    trainer.control.should_training_stop = True
    trainer._save_checkpoint(trainer.model_wrapped, trial=None)
    trainer.control = handler.on_save(trainer.args, trainer.state, trainer.control)


def owes_evaluation(checkpoint: Path) -> bool:
    """Whether a stop has cut the evaluation of this step: the trainer's own record says what was still to be done after it."""
    recorded = json.loads((checkpoint / TRAINER_STATE_NAME).read_text(encoding="utf-8"))["stateful_callbacks"]
    return bool(recorded.get("TrainerControl", {}).get("args", {}).get("should_evaluate"))
