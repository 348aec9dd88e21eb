"""What a run says that it does from the start of the Trainer to its first step."""

import json
from pathlib import Path

import pytest
from transformers import TrainerControl, TrainerState, TrainingArguments

from conf import journal
from conf.run_dir import RunDir
from trainers.callbacks.doing import Doing
from trainers.ranks.doing import say_doing, start_up, start_up_words
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
    for _ in range(2):
        callback.on_step_begin(arguments, state, control)
        callback.on_step_end(arguments, state, control)
        callback.on_evaluate(arguments, state, control)
    first = ["evaluating before the first step"] if evaluated else []
    assert said(RunDir(tmp_path)) == [*first, "reading the first batch", "making the first step", "training"]


def test_one_rank_speaks_for_all(tmp_path: Path) -> None:
    say_doing(RunDir(tmp_path), Place(1, 1, 2), "reading data")
    assert not RunDir(tmp_path).doing.exists()


def test_the_start_of_a_run_is_said_by_its_phases() -> None:
    said = [(100.0, "starting the ranks"), (101.5, "loading libraries"), (107.6, "reading data"), (107.5, "loading weights"), (110.0, "training")]
    assert start_up_words(said) == ("Start-up took 10.1 s: starting the ranks 1.5, loading libraries 6.1, reading data 0.0, loading weights 2.5.")


def test_a_start_counts_from_the_last_one_in_the_journal(tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path)
    journal.record(run_dir, journal.Started())
    journal.record(run_dir, journal.Started())
    starts = [event["time"] for event in journal.events(run_dir)]
    run_dir.layouts.mkdir()
    moments = [(starts[1] + 2, "loading libraries"), (starts[1] + 5, "training")]
    run_dir.doing.write_text("".join(json.dumps({"time": time, "doing": doing}) + "\n" for time, doing in moments))
    assert start_up(run_dir) == "Start-up took 5.0 s: starting the ranks 2.0, loading libraries 3.0."


def test_the_first_step_ends_with_a_line_in_the_log_and_later_ones_with_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    callback, arguments = Doing(RunDir(tmp_path), Place(0, 0, 1)), TrainingArguments(output_dir=str(tmp_path))
    state, control = TrainerState(), TrainerControl()
    callback.on_train_begin(arguments, state, control)
    for _ in range(3):
        callback.on_step_begin(arguments, state, control)
        callback.on_step_end(arguments, state, control)
    printed = capsys.readouterr().out.splitlines()
    assert [line.split(":")[1].split()[:4] for line in printed] == [["reading", "the", "first", "batch"]]
