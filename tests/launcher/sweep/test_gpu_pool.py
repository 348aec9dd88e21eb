"""Sweeps with real runs on this machine's CPU: what finishes, what is refused, what a stop leaves behind."""

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.waiting import PATIENCE, wait_until

pytestmark = pytest.mark.distributed

SMALL = [
    "recipe=demo",
    "node=cpu",
    "cluster.ranks_per_node=1",
    "sharding=ddp",
    "evaluation.interval=0",
    "evaluation.at_end=true",
    "evaluation.answers=0",
    "data.max_samples=64",
]
THREE_STEPS = [*SMALL, "training.micro_batch=4", "training.max_steps=3"]


@pytest.fixture
def sweep(tmp_path: Path, python: str, site_environment: dict[str, str]) -> Iterator[Callable[..., "subprocess.Popen[str]"]]:
    """Starts `train -m` in an empty folder; what is left of it at the end of a test is killed."""
    started: list[subprocess.Popen[str]] = []

    def start(*overrides: str) -> "subprocess.Popen[str]":
        environment = {**site_environment, "OMP_NUM_THREADS": "1"}
        argv = (python, "-m", "launcher", "train", "-m", *overrides)
        process = subprocess.Popen(argv, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
            process.wait()


def ledger_of(folder: Path) -> list[dict[str, Any]]:
    (ledger,) = folder.glob("outputs/sweeps/*/ledger.jsonl")
    return [json.loads(line) for line in ledger.read_text(encoding="utf-8").splitlines()]


def processes_in(folder: Path) -> list[str]:
    """The command lines that name something under `folder`."""
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
        except (FileNotFoundError, ProcessLookupError):  # it ended while we looked
            continue
        if str(folder) in line:
            lines.append(line)
    return lines


def training(folder: Path) -> bool:
    return any('"loss"' in path.read_text(encoding="utf-8") for path in folder.glob("outputs/*/*/progress.jsonl"))


def test_permitted_points_finish_side_by_side_and_refused_ones_are_rows(tmp_path: Path, sweep: Callable[..., "subprocess.Popen[str]"]) -> None:
    process = sweep(*THREE_STEPS, "model=demo,llama3.1_8b", "node.host_memory=8000000000", "optim.lr=1e-3,2e-3", "hydra.launcher.slots=2")
    output = process.communicate(timeout=PATIENCE)[0]
    assert process.returncode == 6, output
    assert "4 points: 2 finished, 2 refused" in output
    assert "best: point" in output
    events = ledger_of(tmp_path)
    assert [event["event"] for event in events] == ["sweep", "refused", "refused", "started", "started", "finished", "finished"]
    assert [event["point"] for event in events[1:3]] == [3, 4]
    assert all(event["cause"].startswith("PUBLISHED_FLOOR") for event in events[1:3])
    for event in events[5:]:
        progress = (Path(event["run_folder"]) / "progress.jsonl").read_text(encoding="utf-8").splitlines()
        evaluations = [entry["eval_loss"] for entry in map(json.loads, progress) if "eval_loss" in entry]
        assert event["objective"] == evaluations[-1]
        assert "supervise" not in processes_in(Path(event["run_folder"]))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["outputs"]
    assert not [path for pattern in (".hydra", "multirun.yaml", "*.log") for path in tmp_path.rglob(pattern)]


@pytest.mark.long  # what it hands over, one by one: test_multirun.py
def test_hydras_basic_launcher_runs_the_points_one_after_another(tmp_path: Path, sweep: Callable[..., "subprocess.Popen[str]"]) -> None:
    process = sweep(*THREE_STEPS, "optim.lr=1e-3,2e-3", "hydra/launcher=basic")
    output = process.communicate(timeout=PATIENCE)[0]
    assert process.returncode == 0, output
    events = [(event["event"], event.get("point")) for event in ledger_of(tmp_path)]
    assert events == [("sweep", None), ("started", 1), ("finished", 1), ("started", 2), ("finished", 2)]
    assert [path.name for path in tmp_path.iterdir()] == ["outputs"]


def test_ctrl_c_saves_the_running_point_and_a_later_start_makes_the_steps_that_are_left(
    tmp_path: Path, sweep: Callable[..., "subprocess.Popen[str]"]
) -> None:
    process = sweep(*SMALL, "training.max_steps=60", "optim.lr=1e-3,2e-3", "training.log_interval=1")
    wait_until(lambda: training(tmp_path), "first loss of a point", process)
    process.send_signal(signal.SIGINT)
    output = process.communicate(timeout=PATIENCE)[0]
    assert process.returncode == 75, output
    assert "2 points: 1 stopped, 1 not started" in output
    stopped = Path(next(event for event in ledger_of(tmp_path) if event["event"] == "stopped")["run_folder"])
    assert list((stopped / "checkpoints").glob("step-*"))
    assert processes_in(tmp_path) == []
    process = sweep("resume=last")
    output = process.communicate(timeout=PATIENCE)[0]
    assert process.returncode == 0, output
    events = ledger_of(tmp_path)
    assert [(event["event"], event.get("point")) for event in events] == [
        ("sweep", None), ("started", 1), ("stopped", 1), ("not started", 2),
        ("sweep", None), ("started", 1), ("finished", 1), ("started", 2), ("finished", 2),
    ]  # fmt: skip
    assert [Path(event["run_folder"]) for event in events if event.get("point") == 1] == [stopped] * 4
    steps = [json.loads(line)["step"] for line in (stopped / "progress.jsonl").read_text(encoding="utf-8").splitlines()]
    assert steps == sorted(steps)  # none was made twice
    assert steps[-1] == 60


def test_a_killed_sweep_leaves_saved_points_and_no_process(tmp_path: Path, sweep: Callable[..., "subprocess.Popen[str]"]) -> None:
    process = sweep(*SMALL, "training.max_steps=100000", "training.epochs=100000", "optim.lr=1e-3,2e-3", "training.log_interval=1")
    wait_until(lambda: training(tmp_path), "first loss of a point", process)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    wait_until(lambda: not processes_in(tmp_path), "end of every process")
    (journal,) = tmp_path.glob("outputs/*/*/journal.jsonl")
    assert json.loads(journal.read_text(encoding="utf-8").splitlines()[-1])["exit_code"] == 75
