"""Ranks that a user started with torchrun meet through files: real processes, stale files, restarts."""

import json
import multiprocessing
import os
import time
from collections.abc import Mapping
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from conf.exit_codes import CONFIG
from conf.processes import process_start
from launcher.errors import ConfigError, RanksFailed
from launcher.launch import torchrun_door
from launcher.launch.torchrun_door import Rank, ask, earlier_run, meeting_place, publish, raise_refusal, remember, started_by_torchrun
from tests.waiting import PATIENCE

FORK = multiprocessing.get_context("fork")
TORCHRUN = {
    "RANK": "5",
    "LOCAL_RANK": "1",
    "WORLD_SIZE": "8",
    "LOCAL_WORLD_SIZE": "4",
    "MASTER_ADDR": "node1",
    "MASTER_PORT": "29500",
    "TORCHELASTIC_RUN_ID": "none",
    "TORCHELASTIC_RESTART_COUNT": "0",
}


def rank_of(number: int, world: int = 2) -> Rank:
    return Rank(number, world, world, "job", 0, False, "host:1:2")


def ask_and_note(number: int, world: int, place: Path, noted: Path) -> None:
    answer = ask(rank_of(number, world), place)
    noted.write_text(f"{answer.run_folder} {answer.exit_code}")


def started_asker(number: int, world: int, place: Path, noted: Path) -> BaseProcess:
    process = FORK.Process(target=ask_and_note, args=(number, world, place, noted))
    process.start()
    return process


def answers(place: Path, world: int, folder: str, code: int, rank_zero_first: bool = False) -> list[str]:
    """What every other rank was told, each in a process of its own."""
    notes = [place.parent / f"{folder.strip('/')}-{number}" for number in range(1, world)]
    leader = FORK.Process(target=publish, args=(rank_of(0, world), place, folder, code))
    if rank_zero_first:
        leader.start()
        time.sleep(0.2)
    others = [started_asker(number, world, place, note) for number, note in enumerate(notes, start=1)]
    if not rank_zero_first:
        time.sleep(0.2)
        leader.start()
    for process in (leader, *others):
        process.join(PATIENCE)
        assert process.exitcode == 0
    return [note.read_text() for note in notes]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    folder = meeting_place(tmp_path, "job")
    folder.mkdir(parents=True)
    return folder


def test_an_ordinary_start_is_no_rank() -> None:
    assert started_by_torchrun({}) is None
    assert started_by_torchrun({"RANK": "0", "WORLD_SIZE": "2"}) is None  # as Slurm steps and MPI set them


def test_torchruns_variables_make_a_rank() -> None:
    rank = started_by_torchrun(TORCHRUN)
    assert rank is not None
    assert (rank.rank, rank.world, rank.ranks_per_node, rank.nodes, rank.restart) == (5, 8, 4, 2, 0)
    assert (rank.job, rank.unique) == ("node1-29500", False)
    assert rank.agent.endswith(f":{os.getppid()}:{process_start(os.getppid())}")


def test_a_job_id_given_by_the_user_names_the_job() -> None:
    rank = started_by_torchrun({**TORCHRUN, "TORCHELASTIC_RUN_ID": "../my job"})
    assert rank is not None
    assert (rank.job, rank.unique) == (".._my_job", True)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"WORLD_SIZE": None}, "WORLD_SIZE is not set"),
        ({"MASTER_ADDR": "", "MASTER_PORT": None}, "MASTER_ADDR, MASTER_PORT are not set"),
        ({"RANK": "one"}, "RANK=one is wrong"),
        ({"RANK": "-1"}, "RANK=-1 is wrong"),
        ({"RANK": "8"}, "RANK=8 with WORLD_SIZE=8 is wrong"),
        ({"LOCAL_RANK": "4"}, "LOCAL_RANK=4 with LOCAL_WORLD_SIZE=4 is wrong"),
        ({"LOCAL_WORLD_SIZE": "0"}, "LOCAL_WORLD_SIZE=0 is wrong"),
        ({"LOCAL_WORLD_SIZE": "3"}, "WORLD_SIZE=8 with LOCAL_WORLD_SIZE=3 is wrong"),
        ({"TORCHELASTIC_RESTART_COUNT": None, "RANK": "1e3"}, "TORCHELASTIC_RESTART_COUNT is not set; RANK=1e3 is wrong"),
        ({"WORLD_SIZE": "9" * 30}, "is wrong"),
    ],
)
def test_half_set_variables_are_refused_by_name(change: dict[str, str | None], said: str) -> None:
    environment = {name: value for name, value in {**TORCHRUN, **change}.items() if value is not None}
    with pytest.raises(ConfigError, match=f"{said}.* unset TORCHELASTIC_RUN_ID LOCAL_RANK") as refused:
        started_by_torchrun(environment)
    assert refused.value.exit_code == CONFIG


@pytest.mark.parametrize("rank_zero_first", [True, False])
def test_ranks_meet_whoever_comes_first(rank_zero_first: bool, place: Path) -> None:
    assert answers(place, 4, "/run", 0, rank_zero_first) == ["/run 0"] * 3
    assert list(place.iterdir()) == []


def test_a_refusal_reaches_every_rank(place: Path) -> None:
    assert answers(place, 2, "", 3) == [" 3"]


def test_what_a_crashed_job_left_does_no_harm(place: Path) -> None:
    """The old rank 1 had its answer acknowledged, and rank 0 died before it could clear the place."""
    (place / "ask-1").write_text("old question")
    (place / "got-1").write_text("old question")
    (place / "answer.json").write_text(json.dumps({"run_folder": "/old", "exit_code": 0, "asked": ["old question"]}))
    (place / "run.json").write_text(json.dumps({"run_folder": "/old", "agent": "gone"}))
    assert answers(place, 2, "/new", 0, rank_zero_first=True) == ["/new 0"]


def test_a_half_read_answer_of_an_earlier_job_is_not_taken(place: Path) -> None:
    (place / "answer.json").write_text(json.dumps({"run_folder": "/old", "exit_code": 0, "asked": ["old question"]}))
    assert answers(place, 3, "/new", 0) == ["/new 0", "/new 0"]


def test_a_single_rank_waits_for_nobody(place: Path) -> None:
    publish(rank_of(0, 1), place, "/run", 0)
    assert list(place.iterdir()) == []


def test_a_rank_that_never_comes_is_named(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torchrun_door, "WAIT_SECONDS", 0.2)
    with pytest.raises(RanksFailed, match=r"Ranks \[1, 2\] did not come"):
        publish(rank_of(0, 3), place, "/run", 0)


def test_a_rank_zero_that_never_answers_is_told(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torchrun_door, "WAIT_SECONDS", 0.2)
    with pytest.raises(RanksFailed, match="Rank 0 published no run folder"):
        ask(rank_of(1), place)


def remembered(place: Path, rank: Rank) -> Path:
    folder = place.parent / "run"
    folder.mkdir()
    remember(rank, place, folder)
    return folder


@pytest.mark.parametrize(
    "again",
    [
        {"restart": 1, "agent": "other:1:1"},  # the agent restarted its ranks
        {"restart": 0},  # only the membership changed: the same agent, and torchrun does not count it
        {"restart": 0, "unique": True, "agent": "other:1:1"},  # the user's own id, as after a requeue
    ],
)
def test_a_restart_finds_the_same_folder(again: Mapping[str, object], place: Path) -> None:
    folder = remembered(place, rank_of(0))
    assert earlier_run(replace(rank_of(0), **again), place) == folder


def test_the_next_job_at_the_same_address_starts_anew(place: Path) -> None:
    remembered(place, rank_of(0))
    assert earlier_run(replace(rank_of(0), agent="host:9:9"), place) is None


def test_a_job_under_the_id_of_a_finished_one_starts_anew(place: Path) -> None:
    folder = remembered(place, replace(rank_of(0), unique=True))
    (folder / "model").mkdir()
    assert earlier_run(replace(rank_of(0), unique=True, agent="host:9:9"), place) is None


def test_a_folder_that_was_removed_is_not_found_again(place: Path) -> None:
    remembered(place, rank_of(0)).rmdir()
    assert earlier_run(rank_of(0), place) is None


def test_a_first_start_has_no_earlier_folder(place: Path) -> None:
    assert earlier_run(rank_of(0), place) is None


@pytest.mark.parametrize(("code", "ends_with"), [(3, 3), (2, 2), (1, 1), (99, 1)])
def test_the_other_ranks_end_with_rank_zeros_code_and_say_nothing(code: int, ends_with: int) -> None:
    with pytest.raises(torchrun_door.RefusedByRankZero) as refused:
        raise_refusal(code)
    assert (refused.value.exit_code, str(refused.value)) == (ends_with, "")
