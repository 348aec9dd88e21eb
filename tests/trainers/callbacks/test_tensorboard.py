"""TensorBoard's files: written in the run folder, by a run that goes on too, and nothing that happens to them ends a training."""

import resource
import signal
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import TrainerControl, TrainerState, TrainingArguments

from conf.run_dir import RunDir
from trainers.callbacks.tensorboard import TensorBoard


def logged(run_dir: RunDir, steps: range) -> None:
    """What a Trainer calls in a start that makes these steps."""
    board, arguments = TensorBoard(run_dir), TrainingArguments(output_dir=str(run_dir.path), report_to=[], use_cpu=True)
    board.on_train_begin(arguments, TrainerState(), TrainerControl())
    for step in steps:
        board.on_log(arguments, TrainerState(global_step=step), TrainerControl(), logs={"loss": 1.0 / step})
    board.on_train_end(arguments, TrainerState(), TrainerControl())


@pytest.fixture
def run_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunDir:
    found = RunDir(tmp_path)
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(found.tracking))  # as launcher/launch/backends.py does
    return found


def test_a_run_that_goes_on_is_one_run_there(run_dir: RunDir) -> None:
    logged(run_dir, range(1, 3))
    logged(run_dir, range(3, 5))
    found = EventAccumulator(str(run_dir.tracking)).Reload()
    assert [event.step for event in found.Scalars("train/loss")] == [1, 2, 3, 4]
    assert not run_dir.notes.exists()


def test_a_folder_that_cannot_be_made_is_said_once(run_dir: RunDir) -> None:
    run_dir.tracking.write_text("a file is in its place")
    logged(run_dir, range(1, 4))
    [said] = run_dir.notes.read_text().splitlines()
    assert said.startswith("WARNING: tracking=tensorboard: ")
    assert "the training goes on" in said


def test_a_file_that_cannot_grow_is_said_once(run_dir: RunDir) -> None:
    """A limit of the kernel on the size of files, met while the run writes to it."""
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        logged(run_dir, range(1, 400))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    [said] = run_dir.notes.read_text().splitlines()
    assert "File too large" in said
