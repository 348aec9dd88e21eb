"""Ends training when evaluations stop getting better. What it decides by is in the trainer's own state, so a resumed run decides the same."""

from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from conf.metrics import HIGHER_IS_BETTER


class EarlyStopping(TrainerCallback):
    def __init__(self, metric: str, patience: int) -> None:
        self.metric, self.patience = metric, patience

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        values = [entry[self.metric] for entry in state.log_history if self.metric in entry]
        if evaluations_since_best(values, HIGHER_IS_BETTER[self.metric]) >= self.patience and state.global_step < state.max_steps:
            print(f"stopping at step {state.global_step}: {self.metric} did not improve in {self.patience} evaluations", flush=True)
            control.should_training_stop = True


def evaluations_since_best(values: list[float], higher_is_better: bool) -> int:
    """How many came after the first of the best ones."""
    if not values:
        return 0
    best = max(values) if higher_is_better else min(values)
    return len(values) - 1 - values.index(best)
