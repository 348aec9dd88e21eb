from pathlib import Path

import pytest
from transformers import TrainerControl, TrainerState, TrainingArguments

from conf.evaluations import with_ends
from tests.described import composed
from trainers.callbacks.last_evaluation import LastEvaluation


@pytest.mark.parametrize(
    ("keys", "at_a_step", "at_the_end"),
    [
        ("evaluation.interval=4", True, True),
        ("evaluation.interval=4 evaluation.at_end=false", True, False),
        ("evaluation.interval=5 evaluation.at_end=false", True, True),
        ("evaluation.interval=0", False, False),
        ("evaluation.interval=0 evaluation.at_end=true", False, True),
    ],
)
def test_the_last_of_ten_steps_is_evaluated_where_the_interval_or_its_key_says_so(
    keys: str, at_a_step: bool, at_the_end: bool, tmp_path: Path
) -> None:
    """transformers' own flow has asked for an evaluation of the last step wherever there is an interval."""
    evaluation = with_ends(composed("model=demo", "data=demo", *keys.split()).evaluation)
    callback, control = LastEvaluation(evaluation), TrainerControl(should_evaluate=evaluation.interval > 0)
    arguments = TrainingArguments(output_dir=str(tmp_path))
    callback.on_step_end(arguments, TrainerState(global_step=9, max_steps=10), control)
    assert control.should_evaluate == at_a_step  # it leaves every other step as it is
    callback.on_step_end(arguments, TrainerState(global_step=10, max_steps=10), control)
    assert control.should_evaluate == at_the_end
