"""How a run ended, from what its ranks left."""

import json
import os
import signal
import time
from pathlib import Path

import pytest

from conf import journal
from conf.run_dir import RunDir
from launcher.launch.outcome import Outcome, outcome_of


@pytest.fixture
def run_dir(tmp_path: Path) -> RunDir:
    (tmp_path / "exit").mkdir()
    return RunDir(tmp_path)


def leave(run_dir: RunDir, rank: int, code: int, message: str, time: float) -> None:
    run_dir.exit_file(rank).write_text(json.dumps({"rank": rank, "code": code, "message": message, "time": time}))


def test_ranks_that_all_finished_make_a_finished_run(run_dir: RunDir) -> None:
    for rank in range(2):
        leave(run_dir, rank, 0, "finished", 1.0)
    assert outcome_of(run_dir, 0) == Outcome(0, "finished")


def test_the_failure_that_came_first_is_the_cause(run_dir: RunDir) -> None:
    leave(run_dir, 0, 1, "RuntimeError: broken pipe", 12.0)
    leave(run_dir, 1, 80, "Out of memory", 11.0)
    leave(run_dir, 2, 1, "RuntimeError: broken pipe", 13.0)
    assert outcome_of(run_dir, 1) == Outcome(80, f"Out of memory (rank 1; the full traceback is in {run_dir.rank_log(1)})")


def test_a_rank_that_only_lost_its_peer_is_not_the_cause(run_dir: RunDir) -> None:
    """Ranks that leave together do so within microseconds, and clocks of nodes differ."""
    leave(run_dir, 1, 76, "Another rank has ended", 10.0)
    leave(run_dir, 0, 4, "data.json is empty", 10.1)
    assert outcome_of(run_dir, 1) == Outcome(4, f"data.json is empty (rank 0; the full traceback is in {run_dir.rank_log(0)})")


def test_ranks_that_all_lost_a_killed_peer_say_so(run_dir: RunDir) -> None:
    leave(run_dir, 1, 76, "Another rank has ended: closed by peer", 10.0)
    assert outcome_of(run_dir, 1) == Outcome(76, f"Another rank has ended: closed by peer (rank 1; the full traceback is in {run_dir.rank_log(1)})")


def test_a_rank_that_left_nothing_is_named_with_its_last_lines(run_dir: RunDir) -> None:
    """Rank 1 was killed; rank 0 then lost it. The log of rank 2 is of an attempt with more ranks."""
    run_dir.logs.mkdir()
    for rank in range(3):
        run_dir.rank_log(rank).write_text("".join(f"line {number} of rank {rank}\n\n" for number in range(9)))
    os.utime(run_dir.rank_log(2), (5.0, 5.0))
    journal.record(run_dir, journal.Started())
    later = time.time() + 1  # the kernel's clock for files lags behind that of processes by some milliseconds
    for rank in range(2):
        os.utime(run_dir.rank_log(rank), (later, later))
    leave(run_dir, 0, 76, "Another rank has ended: closed by peer", 10.0)
    first, named, *lines = outcome_of(run_dir, 1).message.splitlines()
    assert first == f"Another rank has ended: closed by peer (rank 0; the full traceback is in {run_dir.rank_log(0)})"
    assert named == f"Rank 1 ended without a message. Last lines of {run_dir.rank_log(1)}:"
    assert lines == [f"  | line {number} of rank 1" for number in range(4, 9)]
    run_dir.exit_file(0).unlink()
    assert "Ranks 0, 1 ended without a message." in outcome_of(run_dir, -9).message


def test_a_failure_after_a_saved_stop_is_told_before_the_stop(run_dir: RunDir) -> None:
    leave(run_dir, 0, 75, "stopped at step 3, saved", 10.0)
    leave(run_dir, 1, 74, "The disk is full", 11.0)
    assert outcome_of(run_dir, 1).exit_code == 74


def test_a_saved_stop_names_the_way_on(run_dir: RunDir) -> None:
    for rank in range(2):
        leave(run_dir, rank, 75, "stopped at step 3, saved", 10.0)
    nothing = f"stopped before the first checkpoint, so nothing was saved. Go on with: regimen train resume={run_dir.path}"
    assert outcome_of(run_dir, 1) == Outcome(75, nothing)
    run_dir.checkpoint(3).mkdir(parents=True)
    assert outcome_of(run_dir, 1) == Outcome(75, f"stopped and saved. Go on with: regimen train resume={run_dir.path}")
    leave(run_dir, 1, 76, "Another rank has ended", 11.0)  # it lost the one that stopped first
    assert outcome_of(run_dir, 1).exit_code == 75
    leave(run_dir, 1, 80, "Out of memory", 11.0)
    assert outcome_of(run_dir, 1).exit_code == 80


def test_the_supervisors_own_reason_counts_where_no_rank_had_another(run_dir: RunDir) -> None:
    cause = Outcome(76, "Rank 1 gave no sign of life")
    assert outcome_of(run_dir, -9, cause) == cause
    leave(run_dir, 0, 76, "Another rank has ended", 10.0)
    assert outcome_of(run_dir, -9, cause) == cause
    leave(run_dir, 1, 80, "Out of memory", 11.0)
    assert outcome_of(run_dir, -9, cause).exit_code == 80


@pytest.mark.parametrize(("agent_code", "said"), [(-signal.SIGKILL, "ended by SIGKILL"), (1, "the agent's exit code is 1"), (0, "exit code is 0")])
def test_ranks_that_left_nothing_have_failed(agent_code: int, said: str, run_dir: RunDir) -> None:
    outcome = outcome_of(run_dir, agent_code)
    assert outcome.exit_code == 6
    assert said in outcome.message
    assert f"regimen train resume={run_dir.path}" in outcome.message


def test_a_run_before_its_exit_folder_has_failed_too(tmp_path: Path) -> None:
    assert outcome_of(RunDir(tmp_path / "none"), 1).exit_code == 6


def test_a_rank_that_is_missing_beside_finished_ones_is_not_overlooked(run_dir: RunDir) -> None:
    leave(run_dir, 0, 0, "finished", 10.0)
    assert outcome_of(run_dir, 1).exit_code == 6
