"""DeepSpeed's engine, told to go on without waiting once the Trainer has made it."""

from collections.abc import Callable
from typing import Any

from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from trainers.kernels.engine_steps import go_on, goes_on


class EngineSteps(TrainerCallback):
    def __init__(self, trainer: Callable[[], Trainer]) -> None:
        self.trainer = trainer

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        wrapper = self.trainer().accelerator.deepspeed_engine_wrapped
        wrapper.get_global_grad_norm = wrapper.engine.get_global_grad_norm  # accelerate's own reads its value
        if goes_on(wrapper.engine.optimizer):
            go_on(wrapper.engine.optimizer)
