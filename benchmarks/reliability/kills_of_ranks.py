"""F1 and F2 in large: SIGKILL to the ranks of a run, again and again until it ends. Are its bits those of a run that nobody disturbed?

    PYTHONPATH=. python benchmarks/reliability/kills_of_ranks.py --trials 5 --out RESULTS.jsonl
    PYTHONPATH=. python benchmarks/reliability/kills_of_ranks.py --in-save --trials 200 --at-once 7 --seconds 420 --out RESULTS.jsonl

A trial is a run of one of the jobs of kills_in_training.py, in turn, and each kill of it is a line. The two ranks are those of regimen; this process
has imported what they need, and forks them where the agent would start Python, so that a start takes seconds. Each start goes on from what the kill
before has left, and is killed at a moment drawn by the seed: one rank and within half a second the other, or both at once. The last is left alone.

A kill held where the start after it made each step with the loss, the norm of the gradients and the rows of the undisturbed run, lost no more steps
than lie between two checkpoints (with checkpoint.background twice as many, since one may be in flight), and the run ended with the same weights.
It landed in a save where a checkpoint was being written then and was not committed; otherwise where the ranks made steps. The broken variant takes
what a save has written for a checkpoint, and leaves random numbers as a new process has them.
"""

import os
import random
import shutil
import signal
import socket
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import transformers

from benchmarks.reliability.kills_in_training import JOBS, SAME, being_written, left_by, whole
from benchmarks.reliability.trials import arguments, child, files_of, run
from conf.committed import MANIFEST, Manifest, committed, sealed, step_of
from conf.exit_codes import DONE
from conf.reserve import RUN_BYTES, reserve
from conf.run_dir import RunDir, load_run, save_run
from launcher.launch.backends import command
from launcher.launch.execute import clear_last_attempt
from tests.described import described
from trainers import __main__ as rank
from trainers import run as training  # noqa: F401 - imported once, for all forks
from trainers.checkpoints.commit import describe

RANKS = JOBS["cpu"]
STEPS, INTERVAL, WORLD = 24, 2, 2
LENGTH = (f"training.max_steps={STEPS}", f"checkpoint.interval={INTERVAL}")
VICTIMS: dict[str, tuple[int, ...]] = {"rank 0": (0,), "rank 1": (1,), "both ranks": (0, 1)}
LATEST = 300.0  # seconds until what must come has come
PAUSE, SHORT_PAUSE = 0.01, 0.001  # seconds: saves are short


@dataclass(frozen=True)
class Undisturbed:
    left: dict[str, Any]
    save_seconds: float  # of one save


@dataclass
class Attempt:
    """The ranks of one start; `before`: lines of progress that earlier ones have left."""

    run_dir: RunDir
    pids: list[int]
    before: int
    codes: dict[int, int]  # by pid, of those that have ended

    def steps(self) -> list[dict[str, Any]]:
        return whole(self.run_dir.progress)[self.before :]

    def step(self) -> int:
        return max((entry["step"] for entry in self.steps()), default=0)

    def ended(self) -> bool:
        """Whether all have ended, or one has failed, for which the agent would end the others."""
        for pid in self.pids:
            if pid not in self.codes:
                found, status = os.waitpid(pid, os.WNOHANG)
                self.codes |= {pid: os.waitstatus_to_exitcode(status)} if found else {}
        return len(self.codes) == len(self.pids) or any(self.codes.values())

    def kill(self, numbers: tuple[int, ...] = tuple(range(WORLD))) -> None:
        for pid in [self.pids[number] for number in numbers]:
            if pid not in self.codes:
                os.kill(pid, signal.SIGKILL)

    def reap(self) -> None:
        self.kill()
        for pid in self.pids:
            if pid not in self.codes:
                self.codes[pid] = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def started(run_dir: RunDir, broken: bool) -> Attempt:
    """Two ranks that begin or go on in this folder, as the launcher leaves it to them."""
    clear_last_attempt(run_dir)
    for folder in (run_dir.checkpoints, run_dir.logs, run_dir.exits, run_dir.layouts, run_dir.peaks):
        folder.mkdir(parents=True, exist_ok=True)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    before = len(whole(run_dir.progress))
    return Attempt(run_dir, [child(lambda: one_rank(run_dir, number, port, broken)) for number in range(WORLD)], before, {})  # noqa: B023


def one_rank(run_dir: RunDir, number: int, port: int, broken: bool) -> int:
    placed = {"RANK": number, "LOCAL_RANK": number, "WORLD_SIZE": WORLD, "LOCAL_WORLD_SIZE": WORLD, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update(command(load_run(run_dir), run_dir).environment(os.environ))
    os.environ.update({name: str(value) for name, value in placed.items()})
    if broken:
        transformers.Trainer._load_rng_state = lambda *_: None
    sys.argv = ["trainers", str(run_dir.path)]
    return rank.main()


def until(holds: Callable[[], Any], what: str, pause: float = PAUSE) -> None:
    end = time.monotonic() + LATEST
    while not holds():
        if time.monotonic() > end:
            raise TimeoutError(f"there was no {what} within {LATEST:.0f} s")
        time.sleep(pause)


def new_run(job: str, root: Path) -> RunDir:
    run_dir = RunDir(Path(tempfile.mkdtemp(prefix=f"{job}-", dir=root)))
    reserve(run_dir.reserve, RUN_BYTES)
    save_run(described(*SAME, *LENGTH, *RANKS[job]), run_dir)
    return run_dir


def undisturbed(job: str, root: Path) -> Undisturbed:
    run_dir, saving = new_run(job, root), 0.0
    attempt = started(run_dir, broken=False)
    try:
        until(lambda: being_written(run_dir) or attempt.ended(), "save", SHORT_PAUSE)
        since = time.monotonic()
        until(lambda: not being_written(run_dir) or attempt.ended(), "end of a save", SHORT_PAUSE)
        saving = time.monotonic() - since
        until(attempt.ended, "end of the undisturbed run")
    finally:
        attempt.reap()
    if any(attempt.codes.values()):
        raise RuntimeError(f"{job}: the undisturbed run failed: {run_dir.rank_log(0).read_text(errors='replace')[-2000:]}")
    return Undisturbed(left_by(run_dir), saving)


def killed(attempt: Attempt, chance: random.Random, in_save: bool, save_seconds: float) -> dict[str, Any]:
    """Kill ranks at a moment after the checkpoint that is there."""
    run_dir, victim = attempt.run_dir, chance.choice([*VICTIMS])
    base = newest(run_dir)
    moment = base + (chance.choice((INTERVAL, 2 * INTERVAL)) if in_save else chance.randint(1, INTERVAL + 1))
    until(lambda: attempt.step() >= moment or attempt.ended(), f"step {moment}")
    if in_save:
        until(lambda: being_written(run_dir) or attempt.ended(), f"save of step {moment}", SHORT_PAUSE)
        time.sleep(chance.uniform(0.0, save_seconds))
    else:
        time.sleep(chance.uniform(0.0, 0.05))
    living = not attempt.ended()
    attempt.kill(VICTIMS[victim])
    landed = living and (being_written(run_dir) if in_save else attempt.step() < STEPS)
    time.sleep(0.0 if victim == "both ranks" else chance.uniform(0.0, 0.5))
    attempt.reap()
    return {"victim": victim, "in_save": in_save, "step": moment, "landed": landed, "reached": attempt.step()}


def newest(run_dir: RunDir) -> int:
    return step_of(committed(run_dir)[0]) if committed(run_dir) else 0


def take_unfinished(run_dir: RunDir) -> None:
    """As trainers that write into the folder that a resume reads."""
    for staged in run_dir.checkpoints.glob(".*/checkpoint-*"):
        target = run_dir.checkpoint(int(staged.name.removeprefix("checkpoint-")))
        if not target.exists() and (files := {str(path.relative_to(staged)): describe(path) for path in files_of(staged) if path.name != MANIFEST}):
            shutil.move(staged, target)
            (target / MANIFEST).write_text(sealed(Manifest(step_of(target), WORLD, files)))


def differing(attempt: Attempt, expected: dict[str, Any]) -> list[int]:
    """Steps of this attempt that were not made as in the undisturbed run."""
    losses, rows = expected["losses and gradients"], expected["rows"]
    made = {entry["step"]: (entry["loss"], entry["grad_norm"]) for entry in attempt.steps() if "loss" in entry}
    found = left_by(attempt.run_dir)["rows"]
    return [step for step, value in made.items() if value != losses[step] or any(found[name].get(step) != rows[name][step] for name in rows)]


def trial(chance: random.Random, job: str, options: Namespace, root: Path, reference: Undisturbed) -> list[dict[str, Any]]:
    run_dir, lines = new_run(job, root), list[dict[str, Any]]()
    most_lost = INTERVAL * (2 if load_run(run_dir).checkpoint.background else 1)
    while True:
        attempt = started(run_dir, options.broken and bool(lines))
        alone = len(lines) == options.kills or newest(run_dir) > STEPS - 2 * INTERVAL
        try:
            kill = None if alone else killed(attempt, chance, options.in_save, reference.save_seconds)
            until(attempt.ended, "end of the run")
        finally:
            attempt.reap()
        if lines:
            lines[-1] |= after(lines[-1], attempt, reference, most_lost)
        if kill is None or DONE in attempt.codes.values() or not attempt.steps():
            break
        lines.append({"job": job, "kill": len(lines) + 1, **kill})
        if options.broken:
            take_unfinished(run_dir)
    same = left_by(run_dir)["weights"] == reference.left["weights"]
    log = "" if same else run_dir.rank_log(0).read_text(errors="replace")[-1000:]
    shutil.rmtree(run_dir.path)
    return [{**line, "held": line["held"] and same, "why": f"{job}: {line['why']}; same weights at the end: {same}. {log}"} for line in lines]


def after(line: dict[str, Any], attempt: Attempt, reference: Undisturbed, most_lost: int) -> dict[str, Any]:
    """What the start after a kill has shown of it."""
    steps, other = attempt.steps(), differing(attempt, reference.left)
    lost = line["reached"] - next((entry["resumed_from"] for entry in steps if "resumed_from" in entry), 0)
    held = bool(steps) and not other and lost <= most_lost
    return {"lost_steps": lost, "held": held, "why": f"{line['victim']} killed at step {line['step']}: {lost} steps lost, other steps: {other}"}


def main() -> int:
    parser = arguments(__doc__ or "")
    parser.add_argument("--job", choices=[*RANKS], help="this one alone")
    parser.add_argument("--in-save", action="store_true", help="every kill is inside a save")
    parser.add_argument("--at-once", type=int, default=1, help="runs side by side, two ranks each")
    parser.add_argument("--kills", type=int, default=10, help="of one run, at most")
    options = parser.parse_args()
    jobs = [options.job] if options.job else [*RANKS]

    def part(first: int) -> int:
        with tempfile.TemporaryDirectory(prefix="regimen-kills-", ignore_cleanup_errors=True) as made:
            reference = cache(lambda job: undisturbed(job, Path(made)))

            def act(number: int, seed: int) -> list[dict[str, Any]]:
                job = jobs[number % len(jobs)]
                return trial(random.Random(f"{seed} {number}"), job, options, Path(made), reference(job))

            numbers = range(options.first + first, options.trials, options.at_once)
            return run(options, "kills in saves of ranks" if options.in_save else "kills of ranks", act, numbers=numbers)

    if options.at_once == 1:
        return part(0)
    parts = [child(lambda: part(first)) for first in range(options.at_once)]  # noqa: B023
    return max(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in parts)


if __name__ == "__main__":
    sys.exit(main())
