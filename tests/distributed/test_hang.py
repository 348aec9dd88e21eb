"""A rank that is stopped: named in time with what every rank did, or gone on with where it is let go in time."""

import json
import os
import re
import signal
from pathlib import Path

import command_line as line
import pytest
from cells import TINY

from conf.signs import TRAINING, read_sign
from tests.waiting import wait_until

pytestmark = pytest.mark.distributed

LIMIT = 30  # seconds: many times what a busy machine keeps a rank waiting
RUN = ("recipe=demo", *TINY, "training.max_steps=100000", "checkpoint.interval=0", "sharding=ddp", f"hang.training={LIMIT}")


def test_a_rank_that_is_stopped_is_named_with_the_stacks_of_the_others(tmp_path: Path) -> None:
    with line.start((*line.MODULE, "train", *RUN), tmp_path) as started:
        run_dir = started.the_run(tmp_path / "outputs")
        started.wait_until(line.reached(run_dir, 5), "fifth step")
        before = started.wait_until(lambda: (sign := read_sign(run_dir.sign(1))) and sign.phase == TRAINING and sign, "sign of a rank that trains")
        os.kill(before.pid, signal.SIGSTOP)
        os.kill(before.pid, signal.SIGCONT)  # within the limit
        step = max(line.losses(run_dir))
        started.wait_until(line.reached(run_dir, step + 5), "steps after it was let go")
        os.kill(before.pid, signal.SIGSTOP)
        ended = started.end()
    assert ended.code == 76, ended.text
    assert f"regimen: Rank 1 gave no sign of life for {LIMIT // 10}" in ended.err
    assert f"(limit {LIMIT} s, hang.training). Process: process {before.pid} in state T (stopped" in ended.err.replace("\n", " ")
    assert "Traceback" not in ended.text
    first, second = run_dir.hang_log.read_text().split("\n\nrank ")[1:]
    assert "Current thread" in first or "Thread 0x" in first
    assert "trainers/run.py" in first
    assert "It did not answer" in second
    assert [json.loads(text)["event"] for text in run_dir.journal.read_text().splitlines()] == ["start", "hang", "end"]
    wait_until(lambda: line.processes_of(run_dir) == [], "end of every process")


DEADLOCK = """
import os
import torch.distributed as dist
import torch

def rewards(completions, **_):
    if os.environ["RANK"] == "1":
        dist.recv(torch.zeros(1), src=0)  # what rank 0 never sends
    return [0.0] * len(completions)
"""


def test_ranks_that_wait_for_each_other_are_named_within_the_limit(tmp_path: Path) -> None:
    """They count on: their processes run, and each stands in a collective act."""
    (tmp_path / "packages").mkdir()
    (tmp_path / "packages" / "mismatched.py").write_text(DEADLOCK)
    path = f"{tmp_path / 'packages'}:{os.environ.get('PYTHONPATH', '')}"
    judged = ("stage=grpo", "stage.reward_packages=[mismatched]", "stage.rewards=[mismatched:rewards]", "data.validation_share=0")
    with line.start((*line.MODULE, "train", *RUN, *judged, "hang.compiling=10"), tmp_path, PYTHONPATH=path) as started:
        run_dir = started.the_run(tmp_path / "outputs")
        ended = started.end()
    assert ended.code == 76, ended.text
    assert re.search(
        r"Ranks 0, 1 waited for another rank, as all ranks did, for 1\d s while in its first step \(limit 10 s, hang.compiling\)", ended.out
    )
    assert "mismatched.py" in run_dir.hang_log.read_text().split("\n\nrank 1")[1]
    hung = next(event for event in map(json.loads, run_dir.journal.read_text().splitlines()) if event["event"] == "hang")
    assert hung["message"] in ended.out.replace("\n", " ")


def test_a_run_that_is_stopped_while_it_starts_ends_without_a_step(tmp_path: Path) -> None:
    """Its ranks import, read data or load weights then; nothing is there to save."""
    with line.start((*line.MODULE, "train", *RUN), tmp_path) as started:
        run_dir = started.the_run(tmp_path / "outputs")
        started.wait_until(lambda: read_sign(run_dir.sign(0)) or read_sign(run_dir.sign(1)), "birth of a rank")
        started.process.send_signal(signal.SIGINT)
        ended = started.end()
    assert ended.code == 75, ended.text
    assert "stopped before the first checkpoint, so nothing was saved. Go on with: regimen train resume=" in ended.err.replace("\n", " ")
    assert "Traceback" not in ended.text
    assert line.losses(run_dir) == {}
    assert line.processes_of(run_dir) == []
