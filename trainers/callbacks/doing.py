"""Says what the Trainer does from its start to the end of the first step."""

from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from conf.constants import TRAINING
from conf.run_dir import RunDir
from trainers.ranks.doing import say_doing
from trainers.ranks.place import Place

FIRST_STEP = "making the first step"  # which also compiles kernels and allocates the optimizer's states


class Doing(TrainerCallback):
    def __init__(self, run_dir: RunDir, place: Place) -> None:
        self.run_dir, self.place = run_dir, place
        self.begun = False  # the first step has been made

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.say("evaluating before the first step" if args.eval_on_start else FIRST_STEP)

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if not self.begun:
            self.say(FIRST_STEP)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if not self.begun:
            self.begun = True
            self.say(TRAINING)

    def say(self, doing: str) -> None:
        say_doing(self.run_dir, self.place, doing)
