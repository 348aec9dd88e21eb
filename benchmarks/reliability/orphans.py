"""F8: a process of a run is killed at a random moment; is anything of the run alive 10 s later?

`PYTHONPATH=. python benchmarks/reliability/orphans.py --trials 20 --out benchmarks/results/reliability/orphans.jsonl`; `--first 20` goes on.
Who is killed: the launcher, a detached supervisor, the agent, one rank. When: in the birth of the agent or of the ranks, while ranks import, load,
train or save. Whether the signal landed in its window is looked at again after it: what would have ended the window is still not there.
"""

import os
import random
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.reliability.live_runs import BROKEN, PAUSE, SMALL, alive, clean_up, folder_for_trial, run_in, start, wait_for
from benchmarks.reliability.trials import arguments, run
from conf.processes import process_start
from conf.run_dir import RunDir
from conf.signs import COMPILING, DATA, LOADING, STARTING, TRAINING, read_sign

LIMIT = 10.0  # seconds after the death, or, where an agent or a rank died, after the end of the supervisor that noticed it
VICTIMS = ("launcher", "supervisor", "agent", "rank")


@dataclass(frozen=True)
class Moment:
    begins: Callable[[RunDir], bool]
    lasts: Callable[[RunDir], bool]  # asked again after the kill
    longest: float  # seconds after its begin within which the signal is sent
    victims: tuple[str, ...] = VICTIMS


def agents(run_dir: RunDir) -> list[int]:
    return [pid for pid, argv in alive(run_dir).items() if "torch.distributed.run" in argv]


def born(run_dir: RunDir) -> list[int]:
    return [pid for pid, argv in alive(run_dir).items() if argv[-3:-1] == ["-m", "trainers"] and "torch.distributed.run" not in argv]


def phases(run_dir: RunDir) -> set[str]:
    return {sign.phase for rank in (0, 1) if (sign := read_sign(run_dir.sign(rank))) is not None}


def none_has_begun(run_dir: RunDir) -> bool:
    return not phases(run_dir)


def being_saved(run_dir: RunDir) -> bool:
    return any(run_dir.path.rglob("checkpoint-*"))


MOMENTS = {
    "birth of the agent": Moment(lambda run: bool(agents(run)), lambda run: not run.sign(0).exists(), 1.0, ("launcher", "supervisor", "agent")),
    "birth of the ranks": Moment(lambda run: bool(born(run)), none_has_begun, 0.2),
    "imports": Moment(lambda run: phases(run) == {STARTING}, lambda run: bool(phases(run)) and phases(run) <= {STARTING}, 2.0),
    "loading": Moment(
        lambda run: bool(phases(run) & {DATA, LOADING}), lambda run: bool(phases(run)) and phases(run) <= {STARTING, DATA, LOADING, COMPILING}, 1.0
    ),
    "training": Moment(lambda run: phases(run) == {TRAINING}, lambda run: TRAINING in phases(run), 3.0),
    "saving": Moment(being_saved, being_saved, 0.0),
}


def trial(number: int, seed: int, broken: bool) -> dict[str, Any]:
    chance = random.Random(f"{seed}:{number}")
    name = chance.choice([*MOMENTS])
    moment = MOMENTS[name]
    return killed(name, chance.choice(moment.victims), chance.uniform(0, moment.longest), broken)


def killed(name: str, victim: str, delay: float, broken: bool) -> dict[str, Any]:
    """A run whose victim is killed so many seconds after the moment has begun, and what is left of it."""
    moment = MOMENTS[name]
    with folder_for_trial() as made:
        folder = Path(made)
        process = start(
            folder,
            BROKEN if broken else "",
            *SMALL,
            f"checkpoint.interval={1 if name == 'saving' else 0}",
            *(["--detach"] if victim == "supervisor" else []),
        )
        run_dir: RunDir | None = None
        try:
            run_dir = wait_for(lambda: run_in(folder), "run folder", process=process)
            wait_for(lambda: moment.begins(run_dir), name, 0.0 if name == "saving" else PAUSE, process)
            time.sleep(delay)
            above = process.pid if victim != "supervisor" else next(pid for pid, argv in alive(run_dir).items() if "supervise" in argv)
            pid = {"agent": agents, "rank": born}.get(victim, lambda run: [above])(run_dir)
            if not pid:
                return {"moment": name, "victim": victim, "landed": False, "held": False, "why": "the victim was not there"}
            os.kill(pid[0], signal.SIGKILL)
            landed = moment.lasts(run_dir)
            noticed = ended(process, above, victim)
            nothing_lives, left = until_nothing_lives(run_dir)
            found = {"moment": name, "victim": victim, "landed": landed, "held": left == 0, "left": left}
            return {**found, "nothing_lives": nothing_lives, "noticed": noticed, "why": f"{name}, {victim} killed: {left} alive after {LIMIT:.0f} s"}
        finally:
            clean_up(run_dir, process)


def ended(process: Any, above: int, victim: str) -> float:
    """Seconds until the supervisor has ended."""
    began = time.monotonic()
    wait_for(lambda: process.poll() is not None and process_start(above) == 0, f"end of the supervisor after the death of the {victim}")
    return round(time.monotonic() - began, 2)


def until_nothing_lives(run_dir: RunDir) -> tuple[float | None, int]:
    """Seconds until nothing of the run was alive; None, and how many are left at the limit."""
    began = time.monotonic()
    while (passed := time.monotonic() - began) < LIMIT:
        if not alive(run_dir):
            return round(passed, 2), 0
        time.sleep(0.05)
    return None, len(alive(run_dir))


def main() -> int:
    options = arguments(__doc__ or "").parse_args()
    return run(options, "F8 orphans", lambda number, seed: trial(number, seed, options.broken))


if __name__ == "__main__":
    sys.exit(main())
