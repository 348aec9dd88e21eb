"""Says what the Trainer does from its start to the end of the first step, and what the start of the run took."""

from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from conf.constants import TRAINING
from conf.run_dir import RunDir
from trainers.ranks.doing import say_doing, start_up
from trainers.ranks.place import Place

FIRST_BATCH = "reading the first batch"
FIRST_STEP = "making the first step"  # which also compiles kernels and allocates the optimizer's states


class Doing(TrainerCallback):
    def __init__(self, run_dir: RunDir, place: Place) -> None:
        self.run_dir, self.place = run_dir, place
        self.has_batch = self.begun = False  # the first step has begun; it has been made

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.say("evaluating before the first step" if args.eval_on_start else FIRST_BATCH)

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if not self.begun:
            self.say(FIRST_BATCH)

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if not self.has_batch:
            self.has_batch = True
            self.say(FIRST_STEP)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if self.begun:
            return
        self.begun = True
        if torch.cuda.is_available():
            torch.cuda.synchronize()  # once: what the first step takes is known when the GPU has made it
        self.say(TRAINING)
        if self.place.leads:
            print(start_up(self.run_dir), flush=True)

    def say(self, doing: str) -> None:
        say_doing(self.run_dir, self.place, doing)
