"""Runs of real ranks that a board starts, stops and resumes: they are the command line's own, whatever becomes of the board."""

import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from conf import journal
from conf.committed import committed
from conf.run_dir import RunDir
from conf.signs import read_sign
from launcher.board.files import visible
from launcher.board.index import id_of
from launcher.launch.status import find_runs, status_of
from tests.boards import Running, board, call_beside, environment
from tests.waiting import PATIENCE, wait_until

FORM = {"recipe": "demo", "name": "from_the_page", "training.max_steps": "400", "checkpoint.interval": "10"}


def only_run(folder: Path) -> RunDir:
    [found] = find_runs(folder / "outputs")
    return RunDir(found.path.absolute())


def posted(running: Running, path: str, values: Any = None) -> dict[str, Any]:
    done: dict[str, Any] = json.loads(running.post(path, values).text)
    assert done["code"] == 0, done["text"]
    return done


def at_work(run_dir: RunDir, *but: int) -> list[int]:
    """The processes whose command names the run, but for these."""
    return [pid for pid in map(int, filter(str.isdecimal, os.listdir("/proc"))) if pid not in but and str(run_dir.path) in command_line(pid)]


def command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace")
    except OSError:  # it has ended
        return ""


def steps(run_dir: RunDir) -> int:
    return status_of(run_dir).step


@pytest.mark.long
@pytest.mark.distributed
def test_the_model_of_a_finished_run_answers_on_its_page_as_on_the_command_line(tmp_path: Path) -> None:
    done = call_beside(tmp_path, "train", "recipe=demo", "training.max_steps=100", "evaluation.answers=0")  # its answers end
    assert done.returncode == 0, done.stderr
    run_dir, questions = only_run(tmp_path), "2 + 2\nAnd once more?\n"
    with board(tmp_path) as running:
        assert "regimen chat " in running.get(f"/runs/{id_of(run_dir)}/tab/samples").text
        answers = running.post(f"/runs/{id_of(run_dir)}/chat", {"lines": questions})
    said = subprocess.run(
        (sys.executable, "-m", "launcher", "chat", str(run_dir.path)),
        cwd=tmp_path,
        env=environment(tmp_path / ".runtime"),
        input=questions,
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE,
    )
    assert answers.status == 200
    assert said.stdout.strip()
    assert answers.text.endswith(visible(said.stdout))


@pytest.mark.long
@pytest.mark.distributed
def test_a_run_of_the_page_outlives_the_board_stops_with_a_checkpoint_and_goes_on(tmp_path: Path) -> None:
    with board(tmp_path) as first:
        done = posted(first, "/new/start", {"form": FORM})
        run_dir = only_run(tmp_path)
        words = shlex.split(done["command"])
        wait_until(lambda: steps(run_dir) >= 12, "step 12")
        os.kill(first.process.pid, signal.SIGKILL)
        first.process.wait()
        seen = steps(run_dir)
    wait_until(lambda: steps(run_dir) > seen + 5, "steps after the board was killed")

    planned = json.loads(call_beside(tmp_path, "plan", "--json", *words[3:]).stdout)
    recorded = json.loads(run_dir.plan.read_text())
    time = run_dir.path.name
    assert planned["argv"] == [word.replace(time, "TIME") for word in recorded["argv"]]
    assert planned["environment"] == recorded["environment"]
    assert planned["run"] == recorded["run"]

    with board(tmp_path) as second:
        shown = second.get(f"/runs/{id_of(run_dir)}").text
        assert "state running" in shown
        ranks = second.get("/node").text
        assert all(f"process {pid}" in ranks for pid in (read_sign(path).pid for path in run_dir.signs.glob("rank-*.json")))
        decoy = subprocess.Popen((sys.executable, "-c", "import time; time.sleep(3600)", str(run_dir.path)))  # somebody else's, who reads the run
        posted(second, f"/runs/{id_of(run_dir)}/stop")
        wait_until(lambda: status_of(run_dir).state == "stopped", "end of the run")
        assert committed(run_dir)
        stopped_at = steps(run_dir)
        assert stopped_at < 400
        curve = json.loads(second.get(f"/runs/{id_of(run_dir)}/curve").text)["charts"][0]["training"]["steps"]
        assert curve == sorted(set(curve))

        posted(second, f"/runs/{id_of(run_dir)}/resume")
        wait_until(lambda: steps(run_dir) > stopped_at, "steps after the resume")
        posted(second, f"/runs/{id_of(run_dir)}/stop")
        wait_until(lambda: status_of(run_dir).state == "stopped", "second end of the run")
        wait_until(lambda: not at_work(run_dir, decoy.pid), "end of every process of the run")
        assert decoy.poll() is None
        decoy.kill()
        decoy.wait()
        events = [event["event"] for event in journal.events(run_dir) if event["event"] in ("start", "stop requested", "end")]
        assert events == ["start", "stop requested", "end", "start", "stop requested", "end"]
        assert {event.get("via") for event in journal.events(run_dir) if event["event"] in ("start", "stop requested")} == {"board"}
        posted(second, f"/runs/{id_of(run_dir)}/delete")
        assert not run_dir.path.exists()
