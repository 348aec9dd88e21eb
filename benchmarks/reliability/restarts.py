"""F15: a hopeless run is started at most three times without a new checkpoint, and ends with 82 and its cause, whoever starts it again.

Supervisor, job-start, job-end and journal are the real ones; the agent of the ranks is a shell script that fails at once, and Slurm is a loop
that starts the job again as long as the exit code asks for it. Each trial draws who starts the run, how its starts fail, and how many of them
commit first.

    python benchmarks/reliability/restarts.py --trials 20 --seed 0 [--results FILE] [--broken]

With --broken the starts are not counted: the script must then exit with 1.
"""

import argparse
import contextlib
import io
import json
import os
import random
import sys
import tempfile
import time
from functools import cache
from pathlib import Path
from typing import Any

from conf import journal
from conf.exit_codes import BUG, LOST_PEER, NO_PROGRESS
from conf.run_dir import RunDir, save_run
from conf.schema import Run
from launcher.command import Command
from launcher.composition.compose import compose
from launcher.errors import NoProgress
from launcher.facts.node import settled_node
from launcher.gate.settle import settled
from launcher.launch import batch_job, execute, restart
from launcher.launch.supervise import supervise

MOST = 3  # starts without a new checkpoint
ENOUGH = 12  # starts after which a trial that goes on has failed
FAILURES = {"crash": BUG, "lost rank": LOST_PEER, "killed": None}  # the exit code that a rank leaves; None: it leaves nothing
RESULTS = Path(__file__).parents[1] / "results" / "reliability" / "restarts.jsonl"


def main() -> int:
    given = parsed()
    if given.broken:
        restart.starts_without_progress = lambda events: 0
    print(f"F15, seed {given.seed}{', starts are not counted' if given.broken else ''}")
    found = [trial(number, random.Random(f"{given.seed} {number}")) for number in range(given.first, given.first + given.trials)]
    if given.results is not None:
        given.results.parent.mkdir(parents=True, exist_ok=True)
        with given.results.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps({"figure": "F15", "seed": given.seed, "broken": given.broken, **line}) + "\n" for line in found)
    held = sum(line["held"] for line in found)
    print(f"{held} of {len(found)} hopeless runs ended with {NO_PROGRESS} and their cause after at most {MOST} starts without a new checkpoint")
    return 0 if held == len(found) else 1


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--first", type=int, default=0, help="number of the first trial: a later call goes on with the next ones")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--results", type=Path, default=None, help=f"a line for each trial is appended to this file; ours are in {RESULTS.name}")
    parser.add_argument("--broken", action="store_true", help="do not count starts: the script must fail")
    return parser.parse_args()


def trial(number: int, rng: random.Random) -> dict[str, Any]:
    starter, failure, commits = rng.choice(sorted(STARTERS)), rng.choice(sorted(FAILURES)), rng.randrange(4)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="regimen-restarts-") as folder, contextlib.redirect_stdout(io.StringIO()):
        run_dir = RunDir(Path(folder) / "run")
        for made in (run_dir.path, run_dir.logs, run_dir.exits):
            made.mkdir()
        save_run(a_run(), run_dir)
        code, message = STARTERS[starter](run_dir, failure, commits)
        events = [event["event"] for event in journal.events(run_dir)]
    starts = [event for event in events if event in (journal.Started.event, journal.Committed.event)]
    without = len(starts) if journal.Committed.event not in starts else starts[::-1].index(journal.Committed.event)
    cause = "exit code" in message or "ended from outside" in message
    return {
        "trial": number, "starter": starter, "failure": failure, "commits": commits, "starts": starts.count(journal.Started.event),
        "starts_without_checkpoint": without, "exit_code": code, "seconds": round(time.monotonic() - began, 2),
        "held": code == NO_PROGRESS and without <= MOST and cause,
    }  # fmt: skip


@cache
def a_run() -> Run:
    run = compose(["model=demo", "data=demo", "node=cpu", "cluster=slurm"])
    return settled(run, settled_node(run.node, 0))


def by_supervisor(run_dir: RunDir, failure: str, commits: int) -> tuple[int, str]:
    commit = json.dumps({"time": 1, "event": journal.Committed.event, "step": 1, "size": 1, "seconds": 0.1})
    left = FAILURES[failure]
    exit_file = "" if left is None else f"echo '{exit_of(left)}' >$0/exit/rank-0.json; "
    script = (
        f"echo start >>$0/starts; n=$(wc -l <$0/starts); [ $n -gt {commits} ] || echo '{commit}' >>$0/journal.jsonl; "
        f"[ $n -lt {ENOUGH} ] || {{ echo '{exit_of(0)}' >$0/exit/rank-0.json; exit 0; }}; {exit_file}"
    ) + ("kill -KILL $$" if left is None else "exit 1")
    agent = Command(("/bin/sh", "-c", script, str(run_dir.path)), (), (), ())
    ended = supervise(run_dir, agent, os.environ, execute.own(run_dir), restarts=MOST - 1)
    return ended.exit_code, ended.message


def by_slurm(run_dir: RunDir, failure: str, commits: int) -> tuple[int, str]:
    """A job that asks to be queued again, or, where it is killed, that Slurm queues again by itself."""
    put_scontrol(run_dir)
    for start in range(ENOUGH):
        try:
            batch_job.job_start(run_dir, "1")
        except NoProgress as error:
            return error.exit_code, str(error)
        if start < commits:
            journal.record(run_dir, journal.Committed(start, 1, 0.1))
        left = FAILURES[failure]
        if left is None:
            continue  # preempted: nobody could record an end
        run_dir.exits.mkdir(exist_ok=True)
        run_dir.exit_file(0).write_text(exit_of(left), encoding="utf-8")
        code = batch_job.job_end(run_dir, "1", 1)
        if code:
            return code, journal.events(run_dir)[-1]["message"]
    return 0, ""


STARTERS = {"supervisor": by_supervisor, "slurm": by_slurm}


def put_scontrol(run_dir: RunDir) -> None:
    """A stand-in that accepts every requeue; the loop around the job is what Slurm would do."""
    script = run_dir.path.parent / "bin" / "scontrol"
    script.parent.mkdir()
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    os.environ["PATH"] = f"{script.parent}{os.pathsep}{os.environ['PATH']}"


def exit_of(code: int) -> str:
    return json.dumps({"rank": 0, "code": code, "message": "said", "time": 1})


if __name__ == "__main__":
    sys.exit(main())
