"""A small real run for trials that kill or stop its processes, and what is alive of it."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from conf.processes import process_start
from conf.run_dir import RunDir

REPOSITORY = Path(__file__).resolve().parents[2]
PATIENCE = 600.0  # seconds until something that must come has come
PAUSE = 0.005  # windows are short
ENDS = [float("inf")]  # on the monotonic clock: nothing is waited for after it
TRIAL = "REGIMEN_TRIAL"  # in the environment of all that a trial starts: its folder
SMALL = (
    *("recipe=demo", "node=cpu", "cluster.ranks_per_node=2", "training.micro_batch=4", "data.max_samples=64", "evaluation.answers=0"),
    *("evaluation.interval=0", "evaluation.at_start=false", "evaluation.at_end=false", "training.max_steps=1000000"),
    *("model.architecture.hidden_size=64", "model.architecture.intermediate_size=128"),
)
# Takes away what these trials are there to show: imported by every Python process that finds it on its path (site, python docs).
BROKEN = """
from conf import processes
processes.die_with_parent = lambda parent, number=9: None
processes.die_with_ancestors = lambda environment: None
processes.kill_supervised_by = lambda supervisor: []
"""


def start(folder: Path, changed: str, *words: str) -> "subprocess.Popen[bytes]":
    """The command line in a folder of its own; its output is in the file `said` there. `changed` is run first by every Python process of it."""
    if changed:
        (folder / "site").mkdir(exist_ok=True)
        (folder / "site" / "sitecustomize.py").write_text(changed)
    with (folder / "said").open("wb") as said:
        argv = [sys.executable, "-m", "launcher", "train", *words]
        return subprocess.Popen(argv, cwd=folder, env=environment(folder, *([folder / "site"] if changed else [])), stdout=said, stderr=said)


def environment(folder: Path, *sites: Path, **more: str) -> dict[str, str]:
    """Of what a trial starts: `sites` come before this repository and before what this process finds its packages in."""
    inherited = filter(None, [os.environ.get("PYTHONPATH")])
    path = os.pathsep.join([*map(str, sites), str(REPOSITORY), *inherited])
    return {**os.environ, **more, TRIAL: str(folder), "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}


def wait_no_longer_than(seconds: float) -> None:
    """From now on, whatever is waited for: a machine that is lent for minutes is handed back with nothing alive on it."""
    ENDS[0] = time.monotonic() + seconds


def wait_for(holds: Callable[[], Any], what: str, pause: float = PAUSE, process: "subprocess.Popen[bytes] | None" = None) -> Any:
    """The first true answer.

    Raises:
        TimeoutError: naming what did not come in time.
        RuntimeError: where the process that was to bring it about has failed.
    """
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < min(deadline, ENDS[0]):
        answer = holds()
        if answer:
            return answer
        if process is not None and process.poll():
            raise RuntimeError(f"there is no {what}: the command line ended with exit code {process.returncode}")
        time.sleep(pause)
    raise TimeoutError(f"there was no {what} within {PATIENCE:.0f} s, or until all waiting was to end")


def run_in(folder: Path) -> RunDir | None:
    found = [*folder.glob("outputs/*/*/run.yaml")]
    return RunDir(found[0].parent) if found else None


def alive(run_dir: RunDir) -> dict[int, list[str]]:
    """Every process of the trial with its command line: all inherit its name, whoever started them."""
    mark, pids = f"{TRIAL}={run_dir.path.parents[2]}", [int(path.name) for path in Path("/proc").glob("[0-9]*")]
    return {pid: words_of(pid, "cmdline") for pid in pids if mark in words_of(pid, "environ") and process_start(pid)}


def words_of(pid: int, name: str) -> list[str]:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes().decode("utf-8", "replace").split("\0")[:-1]
    except OSError:  # it has ended
        return []


def clean_up(run_dir: RunDir | None, process: "subprocess.Popen[bytes]") -> None:
    """End what a failed trial left: by the name of the trial, never by that of a program."""
    while run_dir is not None and (left := alive(run_dir)):
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, 9)
        time.sleep(0.1)
    if process.poll() is None:
        process.kill()
    process.wait()


def folder_for_trial() -> "tempfile.TemporaryDirectory[str]":
    return tempfile.TemporaryDirectory(prefix="regimen-trial-", ignore_cleanup_errors=True)
