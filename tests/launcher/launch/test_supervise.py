"""Requests to stop, counted by real signals in a process of their own."""

import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from conf import journal
from conf.run_dir import RunDir, save_run
from launcher.command import Command
from launcher.launch.execute import own
from launcher.launch.outcome import Outcome
from launcher.launch.supervise import supervise
from tests.described import described
from tests.waiting import PATIENCE

TINY = ("recipe=demo", "node=cpu", "cluster.ranks_per_node=2")

# Sends itself the signals given, then prints how many it counted; /proc says where its output goes by then.
COUNT = """
import os, signal, sys
from launcher.launch.supervise import StopRequests
signal.signal(signal.SIGHUP, signal.SIG_IGN if "ignored" in sys.argv else signal.SIG_DFL)  # whatever the tests were started under
requests = StopRequests()
for name in sys.argv[2:]:
    if name != "ignored":
        os.kill(os.getpid(), getattr(signal, name))
print("spoken to the terminal", flush=True)
with open(sys.argv[1], "w") as file:
    file.write(f"{requests.count} {os.readlink('/proc/self/fd/1')}")
"""


def counted(folder: Path, *arguments: str) -> tuple[int, str]:
    """(requests, where the output went) of a process on a terminal of its own."""
    master, terminal = pty.openpty()
    subprocess.run([sys.executable, "-c", COUNT, str(folder / "said"), *arguments], stdout=terminal, check=True, timeout=PATIENCE)
    os.close(master)
    os.close(terminal)
    requests, output = (folder / "said").read_text().split()
    return int(requests), output


def test_every_signal_is_one_request(tmp_path: Path) -> None:
    requests, output = counted(tmp_path, "SIGINT", "SIGTERM", "SIGUSR1")
    assert requests == 3
    assert output.startswith("/dev/pts/")


def test_a_closed_terminal_is_a_request_and_is_spoken_to_no_more(tmp_path: Path) -> None:
    assert counted(tmp_path, "SIGHUP") == (1, "/dev/null")


def test_under_nohup_a_closed_terminal_is_no_request(tmp_path: Path) -> None:
    requests, output = counted(tmp_path, "SIGHUP", "ignored")
    assert requests == 0
    assert output.startswith("/dev/pts/")


def supervised(folder: Path, script: str, restarts: int = 0) -> tuple[RunDir, Outcome]:
    """Supervise a stand-in agent, a shell script that finds the run folder in $0."""
    run_dir = RunDir(folder)
    save_run(described(*TINY), run_dir)
    for made in (run_dir.logs, run_dir.exits):
        made.mkdir()
    command = Command(("/bin/sh", "-c", script, str(folder)), (), (), ())
    before = signal.getsignal(signal.SIGINT)
    outcome = supervise(run_dir, command, os.environ, own(run_dir), restarts)
    assert signal.getsignal(signal.SIGINT) is before
    assert not run_dir.lock.exists()
    return run_dir, outcome


def test_a_first_request_leaves_the_ranks_alone_and_a_second_ends_them(tmp_path: Path) -> None:
    script = f"kill -INT {os.getpid()}; while [ ! -e $0/stop ]; do sleep 0.05; done; touch $0/asked; kill -INT {os.getpid()}; sleep 60"
    run_dir, outcome = supervised(tmp_path, script)
    assert (tmp_path / "asked").exists()
    assert outcome.exit_code == 130
    assert outcome.message.startswith("Ended at once, at a second request.")
    assert [event["event"] for event in journal.events(run_dir)] == ["start", "stop requested", "stop requested", "end"]
    assert [(event["by"], event["level"]) for event in journal.events(run_dir)[1:3]] == [("SIGINT", 1), ("SIGINT", 2)]


def test_a_third_request_kills_what_ignores_the_second(tmp_path: Path) -> None:
    me = os.getpid()
    wait = "while [ ! -e $0/stop ]; do sleep 0.05; done"
    _, outcome = supervised(tmp_path, f"trap 'kill -INT {me}' TERM; kill -INT {me}; {wait}; kill -INT {me}; while true; do sleep 0.1; done")
    assert outcome.exit_code == 130


def test_what_the_first_rank_notes_is_shown_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    RunDir(tmp_path).notes.write_text("of the attempt before\n")
    supervised(tmp_path, "echo 'data: 4 samples' >> $0/notes.txt; sleep 0.5; echo 'WARNING: 数据' >> $0/notes.txt")
    shown = capsys.readouterr().out
    assert (shown.count("data: 4 samples\n"), shown.count("WARNING: 数据\n"), "before" in shown) == (1, 1, False)


# Notes each start; what is left of the script decides how this one ends.
COUNTED = "echo start >>$0/starts; n=$(wc -l <$0/starts); "


def starts_of(run_dir: RunDir) -> list[str]:
    return [event["by"] for event in journal.events(run_dir) if event["event"] == "start"]


def test_a_crash_is_started_again_until_it_goes_well(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done = """echo '{"rank": 0, "code": 0, "message": "finished", "time": 1}' >$0/exit/rank-0.json"""
    run_dir, outcome = supervised(tmp_path, COUNTED + f"[ $n = 3 ] || exit 1; {done}", restarts=2)
    assert outcome == Outcome(0, "finished")
    assert starts_of(run_dir) == [journal.USER, journal.SUPERVISOR, journal.SUPERVISOR]
    assert [event["event"] for event in journal.events(run_dir)] == ["start", "failure", "start", "failure", "start", "end"]
    assert capsys.readouterr().out.count("Starting again from the newest checkpoint (backend.max_restarts).") == 2


def test_a_hopeless_run_ends_with_82_after_its_budget_and_names_the_cause(tmp_path: Path) -> None:
    failed = """echo '{"rank": 1, "code": 76, "message": "Rank 0 hangs.", "time": 1}' >$0/exit/rank-1.json; exit 1"""
    run_dir, outcome = supervised(tmp_path, COUNTED + failed, restarts=2)
    assert outcome.exit_code == 82
    assert "The last failure (exit code 76): Rank 0 hangs. (rank 1; the full traceback is in " in outcome.message
    assert len(starts_of(run_dir)) == 3


def test_each_new_checkpoint_gives_the_budget_again(tmp_path: Path) -> None:
    """Commits in its first three starts, and never after."""
    commit = """[ $n -gt 3 ] || echo '{"time": 1, "event": "commit", "step": '$n', "size": 1, "seconds": 0.1}' >>$0/journal.jsonl; """
    run_dir, outcome = supervised(tmp_path, COUNTED + commit + "exit 1", restarts=1)
    assert outcome.exit_code == 82
    assert len(starts_of(run_dir)) == 4


@pytest.mark.parametrize("code", [2, 4, 74, 80, 81])
def test_what_a_new_start_cannot_help_is_not_started_again(code: int, tmp_path: Path) -> None:
    failed = f"""echo '{{"rank": 0, "code": {code}, "message": "said", "time": 1}}' >$0/exit/rank-0.json; exit 1"""
    run_dir, outcome = supervised(tmp_path, COUNTED + failed, restarts=2)
    assert outcome.exit_code == code
    assert len(starts_of(run_dir)) == 1


def test_a_run_that_was_asked_to_stop_is_not_started_again(tmp_path: Path) -> None:
    run_dir, outcome = supervised(tmp_path, COUNTED + "touch $0/stop; exit 1", restarts=2)
    assert outcome.exit_code == 6
    assert len(starts_of(run_dir)) == 1
