"""Measures whether a run's steps take longer while a board is open and a page of the run is looked at.

    python -m benchmarks.speed.board_open [--pairs 6] [--seconds 20] [--out benchmarks/results/speed/board_open.json]

One run trains on the CPU with one rank. In turn there is a board whose pages are asked for as a browser asks for them (the head of the run and the
list every two seconds, the curves every three), and there is none: as many windows of each, side by side in time, so that other work on the machine
slows both alike. Of each window counts the median time from one logged step to the next, and the CPU seconds of the rank per step.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from threading import Event, Thread

from benchmarks.running.cpus import surroundings
from conf.records import is_step, read_lines
from conf.run_dir import RunDir
from conf.signs import read_sign
from launcher.board.index import id_of
from launcher.launch.status import ACTIVE, last_run, status_of
from tests.boards import Running, board, environment
from tests.waiting import PATIENCE, wait_until

RESULTS = Path(__file__).resolve().parents[1] / "results" / "speed" / "board_open.json"
PACKAGES = ("regimen", "torch", "transformers", "starlette", "uvicorn")
JOB = ("recipe=demo", "node=cpu", "cluster.ranks_per_node=1", "sharding=ddp", "training.max_steps=100000", "checkpoint.interval=100000")
QUIET = ("evaluation.interval=0", "evaluation.answers=0", "training.log_interval=1")
WARM_STEPS = 20
TICK = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Window:
    board: bool
    steps: int
    step_seconds: float  # the median
    cpu_seconds: float  # of the rank, per step


def main() -> int:
    arguments, before = parsed(), os.getloadavg()
    with tempfile.TemporaryDirectory(prefix="regimen-board-") as name:
        folder = Path(name)
        with running_job(folder) as run_dir:
            windows = [window for _ in range(arguments.pairs) for window in pair(folder, run_dir, arguments.seconds)]
    ratios = {name: ratios_of(windows, name) for name in ("step_seconds", "cpu_seconds")}
    found = {"with_board_to_without": ratios, "windows": [*map(asdict, windows)]}
    arguments.out.write_text(json.dumps({**surroundings(PACKAGES, before), "seconds": arguments.seconds, **found}, indent=1) + "\n")
    for name, ratio in ratios.items():
        print(f"{name} with a board to those without: median {ratio['median']:.3f}, from {ratio['least']:.3f} to {ratio['most']:.3f}")
    return 0


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure the steps of a run with a board open and without one.")
    parser.add_argument("--pairs", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=20.0, help="of a window")
    parser.add_argument("--out", type=Path, default=RESULTS)
    return parser.parse_args()


@contextmanager
def running_job(folder: Path) -> Iterator[RunDir]:
    """A run that has made its first steps; stopped afterwards."""
    (folder / ".runtime").mkdir(mode=0o700)
    site = environment(folder / ".runtime")

    def call(*words: str) -> None:
        subprocess.run((sys.executable, "-m", "launcher", *words), cwd=folder, env=site, check=True, stdout=subprocess.DEVNULL, timeout=PATIENCE)

    call("train", "--detach", *JOB, *QUIET)
    run_dir = RunDir(last_run(folder / "outputs").path.absolute())
    wait_until(lambda: len(steps_of(run_dir)) >= WARM_STEPS, "first steps")
    try:
        yield run_dir
    finally:
        call("stop", str(run_dir.path))
        wait_until(lambda: status_of(run_dir).state not in ACTIVE, "the end of the run")  # until then it writes into its folder


def pair(folder: Path, run_dir: RunDir, seconds: float) -> tuple[Window, Window]:
    with board(folder) as found, looked_at(found, run_dir):
        watched = window(run_dir, seconds, with_board=True)
    return watched, window(run_dir, seconds, with_board=False)


@contextmanager
def looked_at(found: Running, run_dir: RunDir) -> Iterator[None]:
    """Two pages of the board that are open: the list of runs, and the run with its curves."""
    over, identity = Event(), id_of(run_dir)

    def ask_for(path: str, pause: float) -> None:
        while not over.is_set():
            assert found.get(path).status in (200, 204)
            over.wait(pause)

    askers = [Thread(target=ask_for, args=asked) for asked in (("/runs/list", 2), (f"/runs/{identity}/head", 2), (f"/runs/{identity}/curve", 3))]
    for asker in askers:
        asker.start()
    try:
        yield
    finally:
        over.set()
        for asker in askers:
            asker.join()


def window(run_dir: RunDir, seconds: float, with_board: bool) -> Window:
    begun, cpu = time.time(), cpu_of(run_dir)
    time.sleep(seconds)
    ended, spent = time.time(), cpu_of(run_dir) - cpu
    moments = [moment for moment in steps_of(run_dir) if begun <= moment <= ended]
    pauses = [after - before for before, after in pairwise(moments)]
    return Window(with_board, len(moments), round(median(pauses), 5), round(spent / len(moments), 5))


def steps_of(run_dir: RunDir) -> list[float]:
    """When each step was logged, in seconds since the epoch."""
    return [float(entry["time"]) for entry in read_lines(run_dir.progress, is_step).entries if "loss" in entry]


def cpu_of(run_dir: RunDir) -> float:
    """CPU seconds of rank 0 until now."""
    sign = read_sign(run_dir.signs / "rank-0.json")
    assert sign is not None
    fields = Path(f"/proc/{sign.pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def ratios_of(windows: list[Window], name: str) -> dict[str, float]:
    """Of each window with a board to the one after it without."""
    ratios = [getattr(one, name) / getattr(other, name) for one, other in zip(windows[::2], windows[1::2], strict=True)]
    return {"median": round(median(ratios), 4), "least": round(min(ratios), 4), "most": round(max(ratios), 4)}


if __name__ == "__main__":
    raise SystemExit(main())
