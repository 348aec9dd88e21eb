"""The journal of the queue and what it adds up to."""

import os
from pathlib import Path

import pytest

from conf.run_dir import RunDir
from launcher.errors import ConfigError
from launcher.queue import entries as queue
from launcher.queue.entries import Entry, QueueDir, queue_dir


@pytest.fixture
def place(tmp_path: Path) -> QueueDir:
    """Three runs wait: of one GPU, of two, and of one."""
    found = queue_dir({"XDG_STATE_HOME": str(tmp_path)})
    assert [queue.add(found, (f"optim.lr={number}",), [], gpus) for number, gpus in ((1, 1), (2, 2), (3, 1))] == [1, 2, 3]
    return found


def states(place: QueueDir) -> dict[int, str]:
    return {entry.number: entry.state for entry in queue.entries(place)}


def entry(place: QueueDir, number: int) -> Entry:
    return next(one for one in queue.entries(place) if one.number == number)


def test_an_entry_is_what_was_given_and_where(place: QueueDir) -> None:
    second = entry(place, 2)
    assert (second.overrides, second.gpus, second.working_folder, second.state) == (("optim.lr=2",), 2, os.getcwd(), "waiting")


def test_a_run_that_begins_is_recorded_with_those_that_it_has_passed(place: QueueDir, tmp_path: Path) -> None:
    assert queue.begin(place, 3, RunDir(tmp_path / "run"), ("1",))
    assert states(place) == {1: "waiting", 2: "waiting", 3: "running"}
    assert [(one.passed, one.on) for one in queue.entries(place)] == [(1, ()), (1, ()), (0, ("1",))]


def test_the_journal_has_the_absolute_folder_of_a_run(place: QueueDir) -> None:
    assert queue.begin(place, 1, RunDir(Path("outputs/demo/one")), ("0",))
    assert entry(place, 1).run_dir == RunDir(Path.cwd() / "outputs/demo/one")


def test_a_run_does_not_begin_twice_nor_on_a_gpu_that_another_has(place: QueueDir, tmp_path: Path) -> None:
    assert queue.begin(place, 1, RunDir(tmp_path / "run"), ("0",))
    assert not queue.begin(place, 1, RunDir(tmp_path / "other"), ("1",))
    assert not queue.begin(place, 2, RunDir(tmp_path / "other"), ("0", "1"))
    queue.end(place, 1, "finished", "")
    assert queue.begin(place, 2, RunDir(tmp_path / "other"), ("0", "1"))
    assert states(place) == {1: "finished", 2: "running", 3: "waiting"}


def test_as_many_runs_without_a_gpu_begin_as_somebody_has_said(place: QueueDir, tmp_path: Path) -> None:
    numbers = [queue.add(place, (f"optim.lr={number}",), [], 0) for number in range(4, 9)]
    assert [queue.begin(place, number, RunDir(tmp_path / str(number)), ()) for number in numbers[:2]] == [True, False]
    queue.set_slots(place, 3)
    assert [queue.begin(place, number, RunDir(tmp_path / str(number)), ()) for number in numbers] == [False, True, True, False, False]
    assert queue.slots(place) == 3
    queue.end(place, numbers[0], "finished", "")
    assert queue.begin(place, numbers[3], RunDir(tmp_path / "again"), ())
    assert list(states(place)) == [1, 2, 3, *numbers]
    with pytest.raises(ConfigError, match="0 is not a number of runs"):
        queue.set_slots(place, 0)


def test_only_what_waits_can_be_removed_and_all_of_the_numbers_or_none(place: QueueDir, tmp_path: Path) -> None:
    queue.begin(place, 1, RunDir(tmp_path / "run"), ("0",))
    with pytest.raises(ConfigError, match=f"1 does not wait any more: it runs in {tmp_path / 'run'}. End it with: regimen stop"):
        queue.remove(place, [2, 1])
    with pytest.raises(ConfigError, match="9 is not a number of the queue"):
        queue.remove(place, [9])
    assert states(place)[2] == "waiting"
    queue.remove(place, [2])
    with pytest.raises(ConfigError, match="2 does not wait any more: it is removed"):
        queue.put_first(place, 2)


def test_one_entry_is_first(place: QueueDir) -> None:
    queue.put_first(place, 3)
    queue.put_first(place, 2)
    assert [one.number for one in queue.entries(place) if one.first] == [2]


def test_a_line_that_a_killed_writer_left_torn_costs_no_other(place: QueueDir) -> None:
    with place.journal.open("a", encoding="utf-8") as file:
        file.write('{"time": 1, "entry": 1, "event": "remo')
    assert queue.add(place, ("optim.lr=4",), [], 1) == 4
    assert states(place) == {1: "waiting", 2: "waiting", 3: "waiting", 4: "waiting"}


def test_a_number_is_never_given_twice(place: QueueDir) -> None:
    queue.remove(place, [3])
    assert queue.add(place, (), [], 1) == 4
