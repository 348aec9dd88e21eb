"""The warning's lead and the time limit of a job that goes on, judged by what the starts before it took."""

import json
from pathlib import Path

import pytest

from conf.run_dir import RunDir
from launcher.errors import ConfigError
from launcher.launch.measured_times import Times, measured_times, refuse_by_times
from tests.described import described

SLURM = ("model=demo", "data=demo", "cluster=slurm", "node=h100_80", "cluster.time=00:10:00", "cluster.signal_seconds=60")


@pytest.fixture
def run_dir(tmp_path: Path) -> RunDir:
    """Two starts: 40 s and 200 s to the first step, 2 s a step, saves of 5 and 90 s, and one of 300 s behind an evaluation."""
    found = RunDir(tmp_path)
    found.layouts.mkdir()
    events = [
        {"time": 1000.0, "event": "start"},
        {"time": 1049.0, "event": "commit", "step": 2, "size": 1, "seconds": 0.1},
        {"time": 2000.0, "event": "start"},
        {"time": 2294.0, "event": "commit", "step": 4, "size": 1, "seconds": 0.1},
        {"time": 2596.0, "event": "commit", "step": 5, "size": 1, "seconds": 0.1},
    ]
    doing = [{"time": moment, "doing": what} for moment, what in ((1010.0, "loading weights"), (1040.0, "training"), (2200.0, "training"))]
    steps = [{"step": step, "of": 9, "time": time, "loss": 1.0} for step, time in ((1, 1042.0), (2, 1044.0), (3, 2202.0), (4, 2204.0), (5, 2296.0))]
    steps.append({"step": 5, "of": 9, "time": 2590.0, "eval_loss": 1.0})
    for path, lines in ((found.journal, events), (found.doing, doing), (found.progress, steps)):
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return found


def test_times_are_those_of_the_newest_start_the_usual_step_and_the_longest_save(run_dir: RunDir) -> None:
    """Between steps 2 and 3 lies another start, between 4 and 5 a save."""
    assert measured_times(run_dir) == Times(start=200.0, step=2.0, save=90.0)


def test_a_run_that_never_trained_has_no_times(tmp_path: Path) -> None:
    assert measured_times(RunDir(tmp_path)) == Times(None, None, None)
    refuse_by_times(described(*SLURM), RunDir(tmp_path))


def test_a_warning_that_comes_too_late_for_a_save_is_refused_with_one_that_does_not(run_dir: RunDir) -> None:
    with pytest.raises(ConfigError, match=r"cluster.signal_seconds=60 is too short .* took 92 s .*cluster.signal_seconds=138"):
        refuse_by_times(described(*SLURM), run_dir)


def test_a_limit_that_ends_before_the_first_step_is_refused_with_one_that_does_not(run_dir: RunDir) -> None:
    """A first submission asks 140 + 60 + 60 s; the start of this run alone takes 200: 400 s, or 500 with the margin."""
    least = ("cluster.signal_seconds=140", "cluster.time=00:06:39")
    with pytest.raises(ConfigError, match=r"cluster.time=00:06:39 leaves no time .* took 200 s to its first step.*cluster.time=00:08:20"):
        refuse_by_times(described(*SLURM, *least), run_dir)
    refuse_by_times(described(*SLURM, least[0], "cluster.time=00:06:40"), run_dir)


def test_runs_without_a_limit_are_not_judged(run_dir: RunDir) -> None:
    refuse_by_times(described(*SLURM, "cluster.time=null"), run_dir)
    refuse_by_times(described("model=demo", "data=demo"), run_dir)
