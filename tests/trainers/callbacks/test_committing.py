"""A checkpoint that the trainer wrote aside becomes a committed one; old ones go, the needed ones stay."""

import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
from transformers import TrainerControl, TrainerState, TrainingArguments

from conf.committed import committed, faults
from conf.run_dir import RunDir
from tests.waiting import wait_until
from trainers.callbacks.committing import Committing
from trainers.checkpoints.background import Background

SCORER = SimpleNamespace(can_generate=lambda: False)


@pytest.fixture
def run_dir(tmp_path: Path) -> RunDir:
    made = RunDir(tmp_path)
    made.checkpoints.mkdir()
    return made


def save(committing: Committing, step: int, best: int | None = None) -> TrainerState:
    """What the trainer does before it tells its callbacks."""
    making = committing.run_dir.checkpoints / ".making"
    (making / f"checkpoint-{step}").mkdir(parents=True)
    (making / f"checkpoint-{step}" / "model.safetensors").write_text(f"weights of step {step}")
    state = TrainerState(global_step=step, max_steps=10, best_global_step=best)
    if best is not None:
        state.best_model_checkpoint = str(making / f"checkpoint-{best}")
    committing.on_save(TrainingArguments(output_dir=str(making)), state, TrainerControl(), model=SCORER)
    return state


def steps(run_dir: RunDir) -> list[str]:
    return [checkpoint.name for checkpoint in committed(run_dir)]


def test_a_saved_step_is_committed_whole(run_dir: RunDir) -> None:
    save(Committing(run_dir, keep=2, world=1), 5)
    assert faults(run_dir.checkpoint(5)) == []
    assert (run_dir.checkpoint(5) / "model.safetensors").read_text() == "weights of step 5"


def test_the_oldest_are_removed(run_dir: RunDir) -> None:
    committing = Committing(run_dir, keep=2, world=1)
    for step in (1, 2, 3):
        save(committing, step)
    assert steps(run_dir) == ["step-3", "step-2"]


@pytest.mark.parametrize(
    ("keep", "best", "left"),
    [(2, None, [5, 4]), (2, 1, [5, 1]), (2, 5, [5, 4]), (3, 1, [5, 4, 1]), (3, 4, [5, 4, 3]), (1, 1, [5, 1]), (1, 5, [5, 4]), (1, None, [5, 4])],
)
def test_the_best_checkpoint_is_one_of_those_that_are_kept(keep: int, best: int | None, left: list[int], run_dir: RunDir) -> None:
    """Of keep=2 three were left: the best one came on top. keep=1 keeps two as long as the run trains."""
    committing = Committing(run_dir, keep=keep, world=1)
    for step in (1, 2, 3, 4, 5):
        save(committing, step, best=best if best is not None and best <= step else None)
    assert steps(run_dir) == [f"step-{step}" for step in left]


def test_the_best_checkpoint_stays_and_is_named_where_it_is(run_dir: RunDir) -> None:
    committing = Committing(run_dir, keep=1, world=1)
    for step in (1, 2, 3):
        state = save(committing, step, best=1)
    assert steps(run_dir) == ["step-3", "step-1"]
    assert state.best_model_checkpoint == str(run_dir.checkpoint(1))


def test_a_checkpoint_is_committed_while_training_goes_on_and_a_stop_waits_for_it(run_dir: RunDir) -> None:
    background, may_write = Background(pinned=False), threading.Event()
    committing = Committing(run_dir, keep=2, world=1, background=background)
    background.thread.submit(may_write.wait)
    save(committing, 5)
    assert not run_dir.checkpoint(5).exists()
    may_write.set()
    committing.finish()
    assert faults(run_dir.checkpoint(5)) == []
    making = run_dir.checkpoints / ".making"
    (making / "checkpoint-6").mkdir(parents=True)
    (making / "checkpoint-6" / "model.safetensors").write_text("weights")
    stopping = TrainerControl(should_training_stop=True)
    committing.on_save(TrainingArguments(output_dir=str(making)), TrainerState(global_step=6, max_steps=10), stopping, model=SCORER)
    assert steps(run_dir) == ["step-6", "step-5"]
    background.close()


def test_a_failure_of_what_is_in_flight_ends_the_next_step(run_dir: RunDir) -> None:
    background = Background(pinned=False)
    committing = Committing(run_dir, keep=2, world=1, background=background)

    def fail() -> None:
        raise OSError(28, "No space left on device")

    background.commit(fail)
    wait_until(lambda: background.pending is not None and background.pending.done(), "the failure")
    with pytest.raises(OSError, match="No space left"):
        committing.on_step_end(TrainingArguments(output_dir=str(run_dir.path)), TrainerState(global_step=7, max_steps=10), TrainerControl())
    background.close()


def begin(committing: Committing, step: int) -> None:
    state = TrainerState(global_step=step, max_steps=10)
    committing.on_train_begin(TrainingArguments(output_dir=str(committing.run_dir.path)), state, TrainerControl())


def test_a_run_that_goes_on_keeps_no_more_than_one_that_began(run_dir: RunDir) -> None:
    """The checkpoint that it went on from stayed until its end, and three were left of keep=2."""
    before = Committing(run_dir, keep=2, world=1)
    for step in (1, 2):
        save(before, step)
    resumed = Committing(run_dir, keep=2, world=1)
    begin(resumed, 2)
    for step in (3, 4, 5):
        save(resumed, step)
    assert steps(run_dir) == ["step-5", "step-4"]


def test_a_first_start_protects_nothing(run_dir: RunDir) -> None:
    committing = Committing(run_dir, keep=1, world=1)
    begin(committing, 0)
    for step in (1, 2, 3):
        save(committing, step)
    assert steps(run_dir) == ["step-3", "step-2"]


def test_the_best_checkpoint_of_a_moved_folder_is_found_again(run_dir: RunDir) -> None:
    state = TrainerState(global_step=3, max_steps=10, best_global_step=1, best_model_checkpoint="/old/place/step-1")
    Committing(run_dir, keep=1, world=1).on_train_begin(TrainingArguments(output_dir=str(run_dir.path)), state, TrainerControl())
    assert state.best_model_checkpoint == str(run_dir.checkpoint(1))


def test_a_step_that_is_saved_again_stays_as_it_was(run_dir: RunDir) -> None:
    committing = Committing(run_dir, keep=2, world=1)
    save(committing, 5)
    inode = run_dir.checkpoint(5).stat().st_ino
    save(committing, 5)
    assert run_dir.checkpoint(5).stat().st_ino == inode
