"""What torchrun starts again by itself: within the one budget of the journal, and never what a new start cannot help."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from conf import journal
from conf.run_dir import RunDir, save_run
from launcher.errors import DataError, NoProgress, RegimenError
from launcher.launch import torchrun_door
from launcher.launch.torchrun_door import Rank
from launcher.verbs import train
from tests.described import described

RESTARTED = Rank(rank=0, world=2, ranks_per_node=2, job="job", restart=1, unique=True, agent="here:1:1")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    folder = tmp_path / "place"
    folder.mkdir()
    return folder


@pytest.fixture
def run_dir(tmp_path: Path, place: Path) -> RunDir:
    """The run that this job has started before."""
    made = RunDir(tmp_path / "outputs" / "demo" / "one")
    made.exits.mkdir(parents=True)
    save_run(described("model=demo", "data=demo", "node=cpu"), made)
    torchrun_door.remember(RESTARTED, place, made.path)
    journal.record(made, journal.Started())
    return made


def leave_exit(run_dir: RunDir, code: int) -> None:
    run_dir.exits.mkdir(exist_ok=True)
    run_dir.exit_file(1).write_text(json.dumps({"rank": 1, "code": code, "message": "said", "time": 1.0}))


def started(rank: Rank, place: Path) -> RunDir | None:
    return train.folder_for_torchrun(rank, place, ["model=demo", "data=demo", "node=cpu"], [])


def test_a_cause_that_a_new_start_cannot_help_is_told_again_and_ends_it(run_dir: RunDir, place: Path) -> None:
    leave_exit(run_dir, 4)
    with pytest.raises(DataError, match=r"^said \(rank 1"):
        started(RESTARTED, place)
    assert [event["event"] for event in journal.events(run_dir)] == ["start"]


def test_a_new_job_of_the_same_name_may_have_been_fixed(run_dir: RunDir, place: Path) -> None:
    leave_exit(run_dir, 4)
    assert started(replace(RESTARTED, restart=0), place) == run_dir


def test_torchrun_starts_a_hopeless_run_three_times_in_all(run_dir: RunDir, place: Path) -> None:
    starts: list[RegimenError | None] = []
    for _ in range(3):
        leave_exit(run_dir, 1)
        run_dir.lock.unlink(missing_ok=True)
        try:
            assert started(RESTARTED, place) == run_dir
            starts.append(None)
        except NoProgress as error:
            starts.append(error)
    assert starts[:2] == [None, None]
    assert "The run was started again 2 times without a new checkpoint" in str(starts[2])
    assert [event["by"] for event in journal.events(run_dir) if event["event"] == "start"] == [journal.USER, *[journal.TORCHRUN] * 2]
