"""The table of a running sweep on a terminal, and the plain lines elsewhere."""

import io
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from conf.run_dir import RunDir
from launcher.sweep.display import Follower, Lines, LiveTable, display_for
from launcher.sweep.points import Point
from launcher.sweep.processes import Running


@pytest.fixture
def running(tmp_path: Path) -> Running:
    """A point on two GPUs whose run has made two of nine steps."""
    run_dir = RunDir(tmp_path)
    lines = [{"step": 1, "of": 9, "loss": 2.5, "eta_seconds": 80.0}, {"step": 2, "of": 9, "loss": 1.5, "eta_seconds": 70.0}]
    run_dir.progress.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    process = subprocess.Popen((sys.executable, "-c", ""))
    process.wait()
    return Running(
        Point(7, ("recipe=demo", "data.sets=[a]"), ("data.sets=[a]",)), run_dir, ("GPU-b", "GPU-c"), process, io.BytesIO(), time.monotonic()
    )


def test_the_table_has_gpus_step_loss_and_time_left_of_each_running_point(running: Running) -> None:
    display = LiveTable(("GPU-a", "GPU-b", "GPU-c"))
    display.followers = {7: Follower(running)}
    text = io.StringIO()
    Console(file=text, width=120).print(display.table([running], waiting=3))
    head, row, foot = text.getvalue().strip().splitlines()
    assert head.split() == ["point", "GPU", "overrides", "step", "loss", "time", "left"]
    assert row.split()[0] == "7"
    for said in ("1, 2", "data.sets=[a]", "2/9", "loss 1.5", "1 min 10 s"):
        assert said in row
    assert foot.strip() == "1 point running, 3 waiting"


def test_what_is_new_is_shown_at_the_next_look_and_before_the_first_step_what_the_run_does(running: Running) -> None:
    follower = Follower(running)
    assert follower.cells()[0] == "2/9"
    with running.run_dir.progress.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"step": 3, "of": 9, "loss": 1.25}) + "\n")
    assert follower.cells() == ("3/9", "loss 1.2500", "1 min 10 s")
    running.run_dir.progress.unlink()
    assert "start" in Follower(running).cells()[0]


def test_on_a_terminal_a_line_stands_above_the_table(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with display_for(("GPU-b", "GPU-c")) as display:
        display.update([running], 0)
        display.say("point 8 failed: [red] is not a colour")
    said = terminal.getvalue()
    assert said.index("2/9") < said.index("point 8 failed: [red] is not a colour")


def test_a_log_file_has_the_lines_alone(running: Running, capsys: pytest.CaptureFixture[str]) -> None:
    with display_for(()) as display:
        assert isinstance(display, Lines)
        display.update([running], 1)
        display.say("point 7 finished")
    assert capsys.readouterr().out == "point 7 finished\n"
