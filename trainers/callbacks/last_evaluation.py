"""Whether the last step is evaluated: transformers would do so wherever there is an interval, and never where there is none."""

from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from conf.schema import Evaluation


class LastEvaluation(TrainerCallback):
    """Within the training, so that it is made once: best_at_end and patience count it, and the checkpoint of the step knows it."""

    def __init__(self, evaluation: Evaluation) -> None:
        self.evaluation = evaluation

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if state.global_step >= state.max_steps:
            interval = self.evaluation.interval
            control.should_evaluate = bool(self.evaluation.at_end) or (interval > 0 and state.global_step % interval == 0)
