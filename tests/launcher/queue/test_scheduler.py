"""Which runs of the queue begin, and why others wait; and with real processes what a killed scheduler loses."""

import json
import os
import random
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from conf.records import is_step, read_lines
from launcher.composition.recorded import recorded_run
from launcher.facts.host_memory import host_memory
from launcher.launch import lock
from launcher.launch.status import last_run, status_of
from launcher.queue.entries import Entry, QueueDir, entries, queue_dir
from launcher.queue.scheduler import decided, free_now, reason
from launcher.sweep.schedule import PATIENCE, Request, Resources, left_over, startable
from tests.waiting import PATIENCE as SECONDS
from tests.waiting import wait_until

TWO = Resources(("0", "1"), 1)
SMALL = "recipe=demo node=cpu cluster.ranks_per_node=1 sharding=ddp evaluation.interval=0 evaluation.answers=0"


def waiting(number: int, gpus: int, passed: int = 0, first: bool = False) -> Entry:
    return Entry(number, (), (), "/", gpus, 0.0, passed=passed, first=first)


def test_the_widest_begins_first_and_later_ones_fill_what_it_leaves() -> None:
    assert decided([waiting(1, 1), waiting(2, 2)], TWO) == [(2, ("0", "1"))]
    assert decided([waiting(1, 2), waiting(2, 1)], Resources(("1",), 1)) == [(2, ("1",))]


def test_after_enough_have_passed_it_a_run_keeps_what_becomes_free() -> None:
    assert decided([waiting(1, 2, passed=PATIENCE), waiting(20, 1)], Resources(("1",), 1)) == []
    assert decided([waiting(1, 1, passed=PATIENCE), waiting(20, 2)], TWO) == [(1, ("0",))]


def test_a_run_that_somebody_put_first_begins_before_all_others() -> None:
    assert decided([waiting(1, 2, passed=PATIENCE), waiting(2, 1, first=True)], TWO) == [(2, ("0",))]
    assert decided([waiting(1, 1), waiting(2, 2, first=True)], Resources(("0",), 1)) == []


def test_a_gpu_that_another_process_uses_is_not_free() -> None:
    assert free_now(TWO, [()], {"1": "process 7"}) == Resources(("0",), 0)


def test_the_list_says_why_a_run_waits() -> None:
    one, two = waiting(1, 1), waiting(2, 2)
    assert reason(one, [one, two], Resources(("0",), 1), {}) == "begins next"
    assert reason(two, [one, two], Resources(("0",), 1), {"1": "process 7"}) == "waits for 2 GPUs, and 1 is free; GPU 1 is in use: process 7"
    due = waiting(1, 2, passed=PATIENCE)
    assert reason(waiting(20, 1), [due, waiting(20, 1)], Resources(("0",), 1), {}) == "waits behind 1, before which no other begins"
    assert reason(waiting(3, 0), [], Resources((), 0), {}) == "waits for the end of a run on the CPU"


@pytest.mark.parametrize("seed", range(20))
def test_however_many_come_later_a_run_waits_for_a_bounded_number_of_them(seed: int) -> None:
    """At each moment another run comes; without the bound the first one, which needs all GPUs, would wait for ever beside narrow ones."""
    chance, gpus = random.Random(seed), Resources(tuple("abcd"), 0)
    passed, running, begun = {0: 0}, list[tuple[int, tuple[str, ...]]](), dict[int, int]()
    widths = {0: 4}
    for moment in range(1, 200):
        widths[moment], passed[moment] = chance.choice((1, 1, 2)), 0
        if running:
            running.pop(chance.randrange(len(running)))
        left = [Request(number, widths[number], passed[number]) for number in widths if number not in begun]
        for placement in startable(left, left_over(gpus, [on for _, on in running])):
            begun[placement.number] = moment
            running.append((placement.number, placement.gpus))
            for number in passed:
                passed[number] += number < placement.number and number not in begun
    assert 0 in begun
    assert max(passed.values()) <= PATIENCE + len(gpus.gpus)  # those that begin at the same moment as the last that passes it


@pytest.fixture
def place(tmp_path: Path) -> QueueDir:
    return queue_dir({"XDG_STATE_HOME": str(tmp_path / "state")})


def journal_of(place: QueueDir) -> list[tuple[int, str, str]]:
    lines = map(json.loads, place.journal.read_text(encoding="utf-8").splitlines())
    return [(line["entry"], line["event"], line.get("state", "")) for line in lines]


def caller(folder: Path, python: str, site_environment: dict[str, str]) -> Callable[..., str]:
    """`regimen queue` in a folder whose queue is its own."""
    environment = {**site_environment, "OMP_NUM_THREADS": "1", "XDG_STATE_HOME": str(folder / "state")}

    def call(*words: str) -> str:
        done = subprocess.run(
            (python, "-m", "launcher", "queue", *words), cwd=folder, env=environment, capture_output=True, text=True, timeout=SECONDS
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return call


@pytest.mark.distributed
def test_a_killed_scheduler_loses_nothing_and_comes_back_when_the_run_ends_that_goes_on_without_it(
    tmp_path: Path, place: QueueDir, python: str, site_environment: dict[str, str]
) -> None:
    call = caller(tmp_path, python, site_environment)
    call("add", *SMALL.split(), "training.max_steps=60")
    wait_until(lambda: (1, "started", "") in journal_of(place), "start of the first run")
    call("add", *SMALL.split(), "training.max_steps=1")
    owner = lock.read_owner(place.lockable)
    assert owner is not None
    os.kill(owner.pid, signal.SIGKILL)
    wait_until(lambda: (2, "ended", "finished") in journal_of(place), "end of the second run")
    ends = [entry for entry in journal_of(place) if entry[1] in ("started", "ended")]
    assert ends == [(1, "started", ""), (1, "ended", "finished"), (2, "started", ""), (2, "ended", "finished")]
    wait_until(lambda: lock.read_owner(place.lockable) is None, "end of a scheduler that has nothing to do")
    assert len(list(tmp_path.glob("outputs/*/*/model"))) == 2
    longer = last_run(tmp_path / "outputs")
    assert [entry["state"] for entry in json.loads(call("--json"))] == ["finished", "finished"]
    call("add", "resume=last", "training.max_steps=3")
    wait_until(lambda: (3, "ended") in [entry[:2] for entry in journal_of(place)], "end of the run that goes on")
    assert journal_of(place)[-1] == (3, "ended", "finished")
    assert read_lines(longer.progress, is_step).entries[-1]["step"] == 3


@pytest.mark.long
@pytest.mark.distributed
def test_three_runs_go_on_side_by_side_on_the_cpu_and_a_fourth_begins_when_one_ends(
    tmp_path: Path, place: QueueDir, python: str, site_environment: dict[str, str]
) -> None:
    call = caller(tmp_path, python, site_environment)
    assert "3 runs without a GPU may go on at the same time" in call("slots", "3")
    for number in range(4):
        call("add", *SMALL.split(), f"name=run{number}", "training.max_steps=100000")
    wait_until(lambda: [entry[:2] for entry in journal_of(place)].count((3, "started")) == 1, "start of the third run")
    runs = [entry.run_dir for entry in entries(place)[:3]]
    wait_until(lambda: all(run is not None and status_of(run).step > 1 for run in runs), "steps of three runs")
    listed = json.loads(call("--json"))
    assert [entry["state"] for entry in listed] == ["running", "running", "running", "waiting"]
    assert listed[3]["why"] == "waits for the end of a run on the CPU"
    memory = [recorded_run(run).node.host_memory for run in runs if run is not None]
    assert len(memory) == 3
    assert sum(size or 0 for size in memory) <= host_memory(Path("/"))[0]
    for folder in (listed[1]["run_folder"], None):  # the fourth begins by itself, and then all others end
        for path in [folder] if folder else [entry["run_folder"] for entry in json.loads(call("--json")) if entry["state"] == "running"]:
            subprocess.run((python, "-m", "launcher", "stop", path), cwd=tmp_path, env=site_environment, check=True, timeout=SECONDS)
        wait_until(lambda: (4, "started", "") in journal_of(place), "start of the fourth run")
    wait_until(lambda: all(entry.state == "stopped" for entry in entries(place)), "end of all runs")
