"""When training ends because evaluations stopped getting better."""

from pathlib import Path

import pytest
from transformers import TrainerControl, TrainerState, TrainingArguments

from trainers.callbacks.early_stopping import EarlyStopping, evaluations_since_best


def stops(metric: str, patience: int, values: list[float], folder: Path) -> bool:
    state = TrainerState(global_step=10 * len(values), max_steps=1000)
    state.log_history = [{"loss": 1.0, "step": 1}, *({metric: value, "step": number} for number, value in enumerate(values))]
    control = TrainerControl()
    EarlyStopping(metric, patience).on_evaluate(TrainingArguments(output_dir=str(folder), use_cpu=True), state, control)
    return control.should_training_stop


@pytest.mark.parametrize(
    ("values", "higher", "since"),
    [([], False, 0), ([3.0], False, 0), ([3.0, 2.0, 2.5, 2.0], False, 2), ([0.5, 0.7, 0.6], True, 1), ([0.5, 0.7, 0.6], False, 2)],
)
def test_the_first_of_the_best_evaluations_counts(values: list[float], higher: bool, since: int) -> None:
    assert evaluations_since_best(values, higher) == since


def test_training_ends_when_patience_is_over(tmp_path: Path) -> None:
    assert not stops("eval_loss", 2, [3.0, 2.0, 2.5], tmp_path)
    assert stops("eval_loss", 2, [3.0, 2.0, 2.5, 2.4], tmp_path)
    assert not stops("eval_reward_accuracy", 2, [0.5, 0.6, 0.7], tmp_path)
    assert stops("eval_reward_accuracy", 2, [0.7, 0.6, 0.5], tmp_path)
