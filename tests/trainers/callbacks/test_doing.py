"""What a run says that it does from the start of the Trainer to its first step."""

import json
from pathlib import Path

import pytest
from transformers import TrainerControl, TrainerState, TrainingArguments

from conf.run_dir import RunDir
from trainers.callbacks.doing import Doing
from trainers.ranks.doing import say_doing
from trainers.ranks.place import Place


def said(run_dir: RunDir) -> list[str]:
    return [json.loads(line)["doing"] for line in run_dir.doing.read_text().splitlines()]


@pytest.mark.parametrize("evaluated", [True, False])
def test_what_comes_before_the_first_step_has_a_name_and_a_later_evaluation_says_nothing(evaluated: bool, tmp_path: Path) -> None:
    callback, arguments = Doing(RunDir(tmp_path), Place(0, 0, 2)), TrainingArguments(output_dir=str(tmp_path), eval_on_start=evaluated)
    arguments.eval_on_start = evaluated
    state, control = TrainerState(), TrainerControl()
    callback.on_train_begin(arguments, state, control)
    if evaluated:
        callback.on_evaluate(arguments, state, control)
    callback.on_step_end(arguments, state, control)
    callback.on_evaluate(arguments, state, control)
    callback.on_step_end(arguments, state, control)
    first = ["evaluating before the first step"] if evaluated else []
    assert said(RunDir(tmp_path)) == [*first, "making the first step", "training"]


def test_one_rank_speaks_for_all(tmp_path: Path) -> None:
    say_doing(RunDir(tmp_path), Place(1, 1, 2), "reading data")
    assert not RunDir(tmp_path).doing.exists()
