"""A request to stop, by file or signal, saves and ends the run at the end of the step."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from transformers import TrainerControl, TrainerState, TrainingArguments

from conf.exit_codes import LOST_PEER, SAVED
from conf.run_dir import RunDir
from trainers.callbacks.stopping import SIGNALS, Stopping
from trainers.errors import Stopped
from trainers.ranks.causes import cause_of
from trainers.ranks.stop import REQUESTS


@pytest.fixture
def stopping(tmp_path: Path) -> Iterator[Stopping]:
    before = {number: signal.getsignal(number) for number in SIGNALS}
    made = Stopping(RunDir(tmp_path))
    made.begin()
    yield made
    for number, handler in before.items():
        signal.signal(number, handler)
    REQUESTS.begin(tmp_path / "never")


def step_end(stopping: Stopping, step: int, of: int = 10) -> TrainerControl:
    control = TrainerControl()
    stopping.on_step_end(TrainingArguments(output_dir=str(stopping.run_dir.path)), TrainerState(global_step=step, max_steps=of), control)
    return control


def asked(control: TrainerControl) -> tuple[bool, bool]:
    return control.should_save, control.should_training_stop


def test_a_run_that_nobody_stops_goes_on(stopping: Stopping) -> None:
    assert asked(step_end(stopping, 3)) == (False, False)
    assert not stopping.stopped


def test_the_stop_file_saves_and_ends(stopping: Stopping) -> None:
    stopping.run_dir.stop.write_text("stop\n")
    assert asked(step_end(stopping, 3)) == (True, True)
    assert stopping.stopped


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_saves_and_ends_at_the_end_of_the_step(number: signal.Signals, stopping: Stopping) -> None:
    os.kill(os.getpid(), number)
    assert not stopping.stopped
    assert asked(step_end(stopping, 3)) == (True, True)
    assert stopping.stopped


@pytest.mark.parametrize("asked_for", [True, False])
def test_a_signal_before_the_first_step_ends_the_rank_at_once_and_only_once(asked_for: bool, stopping: Stopping) -> None:
    """While it tokenises, loads or evaluates before the first step there is nothing to save."""
    if asked_for:
        stopping.run_dir.stop.write_text("stop\n")
    stopping.begun = False
    with pytest.raises(Stopped) as raised:
        os.kill(os.getpid(), signal.SIGTERM)
    assert cause_of(raised.value)[0] == (SAVED if asked_for else LOST_PEER)
    os.kill(os.getpid(), signal.SIGTERM)  # the agent's, while the rank writes how it ended


def test_a_signal_that_was_ignored_when_the_rank_began_stays_ignored(tmp_path: Path) -> None:
    """Slurm signals every process of a step, also data workers and compilers; the batch script starts them all with SIGTERM ignored."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        Stopping(RunDir(tmp_path))
        os.kill(os.getpid(), signal.SIGTERM)
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_IGN
        with pytest.raises(Stopped):
            os.kill(os.getpid(), signal.SIGUSR1)  # what trainers/ranks/life.py sends itself when it finds the stop file
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_a_run_at_its_last_step_finishes_instead(stopping: Stopping) -> None:
    stopping.run_dir.stop.write_text("stop\n")
    assert asked(step_end(stopping, 10)) == (False, False)
    assert not stopping.stopped
