"""Says what the Trainer does at any moment, for the signs of life of this rank."""

from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from conf.signs import COMPILING, EVALUATION, SAVING, TRAINING
from trainers.ranks.life import LIFE


class Living(TrainerCallback):
    """The last of all callbacks, so that it knows what the others have decided: the Trainer evaluates and saves after the end of a step."""

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        LIFE.finish_step(state.global_step)
        self.first_step = state.global_step
        LIFE.enter(EVALUATION if args.eval_on_start else COMPILING)

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        LIFE.enter(COMPILING if state.global_step == self.first_step else TRAINING)

    def on_substep_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        LIFE.move()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        LIFE.finish_step(state.global_step)
        self.say_next(control)

    def on_epoch_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.say_next(control)

    def on_prediction_step(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        LIFE.move()

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        LIFE.enter(SAVING if control.should_save else COMPILING if state.global_step == self.first_step else TRAINING)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        LIFE.enter(TRAINING)

    def say_next(self, control: TrainerControl) -> None:
        if control.should_evaluate or control.should_save:
            LIFE.enter(EVALUATION if control.should_evaluate else SAVING)
