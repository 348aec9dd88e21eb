"""F13: SIGUSR1 to the launcher, the agent or a rank, and terminals that close or know ASCII alone. How many finished steps of a run are lost?

`PYTHONPATH=. python benchmarks/reliability/closed_doors.py --trials 12 --out benchmarks/results/reliability/closed_doors.jsonl`; `--first 12`
goes on. Each trial is a real training that would go on for ever. A signal, and a terminal that closes, ask it to stop; a reader that leaves, and a
terminal for ASCII, must change nothing: there the run is stopped by its stop file ten steps later. Held: the run ends with 75, and its newest
checkpoint has every step that was logged. --broken leaves the signals to their default, and writes to the display as it is.
"""

import os
import pty
import random
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.reliability.live_runs import SMALL, alive, clean_up, environment, folder_for_trial, run_in, wait_for
from benchmarks.reliability.trials import arguments, run
from conf.committed import committed, faults, step_of
from conf.exit_codes import SAVED
from conf.records import is_step, read_lines
from conf.run_dir import RunDir
from conf.signs import read_sign

RUN = (*SMALL, "cluster.ranks_per_node=1", "sharding=ddp", "checkpoint.interval=0")
BROKEN = """
from launcher import cli
from launcher.launch import supervise
class Plain(supervise.StopRequests):
    def __init__(self):
        self.count, self.last, self.before = 0, "", {}
supervise.StopRequests = Plain
class AsItIs:
    failed = None
    def __init__(self, stream):
        self.stream = stream
    def __getattr__(self, name):
        return getattr(self.stream, name)
cli.Steady = AsItIs
"""
ENOUGH = 3  # steps before anything happens
LOOK = 0.05  # seconds
MORE = 10  # steps after what must change nothing


class Reader(threading.Thread):
    """Takes what the run writes to its display, until it leaves: then our end is closed."""

    def __init__(self, display: int) -> None:
        super().__init__(daemon=True)
        self.display, self.leaves = display, threading.Event()
        self.start()

    def run(self) -> None:
        with suppress(OSError):  # a terminal whose other end is closed
            while not self.leaves.is_set():
                if select.select([self.display], [], [], LOOK)[0] and not os.read(self.display, 65536):
                    break
        os.close(self.display)

    def leave(self) -> None:
        self.leaves.set()
        self.join()


@dataclass
class Running:
    process: "subprocess.Popen[bytes]"
    run_dir: RunDir
    reader: Reader


def to_launcher(running: Running) -> None:
    running.process.send_signal(signal.SIGUSR1)


def to_agent(running: Running) -> None:
    agent = next(pid for pid, argv in alive(running.run_dir).items() if "torch.distributed.run" in argv)
    os.kill(agent, signal.SIGUSR1)


def to_rank(running: Running) -> None:
    sign = read_sign(running.run_dir.sign(0))
    assert sign is not None, "it trains"
    os.kill(sign.pid, signal.SIGUSR1)


def close_terminal(running: Running) -> None:
    running.reader.leave()


def leave(running: Running) -> None:
    running.reader.leave()
    go_on_and_stop(running)


def go_on_and_stop(running: Running) -> None:
    reached = last_step(running.run_dir) + MORE
    wait_for(lambda: last_step(running.run_dir) >= reached, "steps after it", process=running.process)
    running.run_dir.stop.touch()


@dataclass(frozen=True)
class Door:
    act: Callable[[Running], None]
    terminal: bool = False
    site: tuple[tuple[str, str], ...] = ()


DOORS = {
    "USR1 to the launcher": Door(to_launcher),
    "USR1 to the agent": Door(to_agent),
    "USR1 to a rank": Door(to_rank),
    "terminal closed": Door(close_terminal, terminal=True),
    "reader that leaves": Door(leave),
    "ASCII terminal": Door(go_on_and_stop, terminal=True, site=(("LC_ALL", "C"), ("PYTHONIOENCODING", "ascii"), ("PYTHONUTF8", "0"))),
}


def last_step(run_dir: RunDir) -> int:
    return max((entry["step"] for entry in read_lines(run_dir.progress, is_step).entries if "loss" in entry), default=0)


def started(folder: Path, door: Door, broken: bool) -> Running:
    site = folder / "site"
    if broken:
        site.mkdir()
        (site / "sitecustomize.py").write_text(BROKEN)
    ours, theirs = pty.openpty() if door.terminal else os.pipe()
    around = environment(folder, *([site] if broken else []), **dict(door.site))
    argv = [sys.executable, "-m", "launcher", "train", *RUN]
    # a session of its own, whose terminal this is: its end is then a hang-up
    attach = ["setsid", "--ctty", "--wait"] if door.terminal else []
    # started from here, it would inherit what a shell in the background ignores
    process = subprocess.Popen([*attach, *argv], cwd=folder, env=around, stdin=theirs, stdout=theirs, stderr=theirs, preexec_fn=listen)
    os.close(theirs)
    reader = Reader(ours)
    run_dir = wait_for(lambda: run_in(folder), "run folder", process=process)
    return Running(process, run_dir, reader)


def listen() -> None:
    for number in (signal.SIGINT, signal.SIGUSR1, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)


def trial(number: int, seed: int, broken: bool) -> dict[str, Any]:
    chance = random.Random(f"{seed}:{number}")
    name = [*DOORS][number % len(DOORS)]
    door, delay = DOORS[name], chance.uniform(0, 1)
    with folder_for_trial() as made:
        running = started(Path(made), door, broken)
        run_dir, process = running.run_dir, running.process
        try:
            wait_for(lambda: last_step(run_dir) >= ENOUGH, "steps", process=process)
            time.sleep(delay)
            landed = process.poll() is None
            door.act(running)
            code = process.wait()
            running.reader.leave()
            logged, checkpoints = last_step(run_dir), [path for path in committed(run_dir) if not faults(path)]
        finally:
            clean_up(run_dir, process)
    lost = logged - (step_of(checkpoints[0]) if checkpoints else 0)
    why = f"{name}: exit code {code}, {lost} of {logged} steps lost"
    return {"door": name, "code": code, "steps": logged, "lost": lost, "landed": landed, "held": code == SAVED and lost <= 0, "why": why}


def main() -> int:
    options = arguments(__doc__ or "").parse_args()
    return run(options, "F13 closed doors", lambda number, seed: trial(number, seed, options.broken))


if __name__ == "__main__":
    sys.exit(main())
