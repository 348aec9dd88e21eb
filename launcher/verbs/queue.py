"""The verbs of the queue: a run is added, the list is shown, an entry is removed or put first; and the two processes behind it."""

import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from conf.words import aligned
from launcher.errors import RegimenError
from launcher.launch.canary import is_needed
from launcher.launch.execute import gate_refusal, remove_run_dir
from launcher.launch.status import shortest
from launcher.queue import entries as queue
from launcher.queue import scheduler
from launcher.queue.entries import Entry, QueueDir
from launcher.queue.judging import judged_for_later, judged_now, settled
from launcher.queue.standing import standing
from launcher.sweep.points import Result, one_line
from launcher.sweep.processes import prepared
from launcher.sweep.schedule import Resources
from launcher.sweep.session import resources_here
from launcher.verbs.train import announce, supervise_folder
from launcher.words import age, plural

HEAD = ("number", "state", "GPUs", "run", "age", "")


def here() -> QueueDir:
    return queue.queue_dir(os.environ)


def add(overrides: Sequence[str], config_dirs: Sequence[Path]) -> int:
    """Judge a run and let it wait for its turn; a refused one is not added.

    Raises:
        ConfigError: for a run that `train` would not start, and for one to go on with that waits already.
        GateRefused: where it would not fit on this machine with nothing else there.
    """
    described = settled(overrides)
    decided = judged_for_later(described, config_dirs, resources_here(None, queue.slots(here())))
    announce(decided, described)
    if not (decided.verdict.permitted or is_needed(decided)):
        raise gate_refusal(decided)
    place = here()
    number = queue.add(place, described, config_dirs, decided.run.node.gpus)
    scheduler.ensure_running(place, os.environ)
    print(f"number {number} of the queue. `regimen queue` shows it; take it out with: regimen queue remove {number}")
    return 0


def remove(numbers: Sequence[int]) -> int:
    each = list(dict.fromkeys(numbers))  # a number that is given twice is one entry
    queue.remove(here(), each)
    print(f"removed: {', '.join(map(str, each))}")
    return 0


def put_first(number: int) -> int:
    queue.put_first(here(), number)
    print(f"{number} begins before all others, as soon as its GPUs are free.")
    return 0


def set_slots(number: int) -> int:
    queue.set_slots(here(), number)
    each = "the whole host memory" if number == 1 else f"1/{number} of the host memory"
    print(f"{plural(number, 'run')} without a GPU may go on at the same time, from now on. Each that begins is judged to have {each}.")
    return 0


def show(as_json: bool) -> int:
    """What runs, what waits and why, and the newest that are over."""
    place = here()
    scheduler.ensure_running(place, os.environ)
    now = standing(place)
    if as_json:
        print(json.dumps([as_dict(entry, now.words(entry)) for entry in now.entries], indent=1))
        return 0
    if not now.entries:
        print("The queue is empty. Add a run with: regimen queue add KEY=VALUE ...")
        return 0
    print("\n".join(aligned([HEAD, *(row(entry, now.words(entry)) for entry in now.entries)])))
    return 0


def row(entry: Entry, why: str) -> tuple[str, ...]:
    gpus = ", ".join(entry.on) if entry.state == "running" and entry.on else str(entry.gpus or "CPU")
    run = " ".join(entry.overrides) if entry.run_dir is None else shortest(entry.run_dir.path)
    marked = f"{entry.state}{' (first)' if entry.first and entry.state == 'waiting' else ''}"
    return (str(entry.number), marked, gpus, run, age(time.time() - entry.changed), why)


def as_dict(entry: Entry, why: str) -> dict[str, Any]:
    """For programs; times are seconds since the epoch."""
    return {
        "number": entry.number,
        "state": entry.state,
        "overrides": list(entry.overrides),
        "working_folder": entry.working_folder,
        "gpus": entry.gpus,
        "on": list(entry.on),
        "run_folder": str(entry.run_dir.path) if entry.run_dir else None,
        "first": entry.first,
        "passed": entry.passed,
        "added": entry.added,
        "changed": entry.changed,
        "why": why,
    }


def serve() -> int:
    """The scheduler: `regimen queue add` leaves it running."""
    place = here()
    place.path.mkdir(parents=True, exist_ok=True, mode=0o700)
    return scheduler.serve(place)


def run(number: int, on: tuple[str, ...], of: int) -> int:
    """An entry begins in this process, which was started in its working folder and sees only its GPUs, `on`; the machine has `of`.

    It judges the run on the machine as it is now, records it, and supervises it to its end.
    """
    place = here()
    entry = next(entry for entry in queue.entries(place) if entry.number == number)
    try:
        found = judged_now(entry.overrides, [*map(Path, entry.config_dirs)], Resources(tuple(map(str, range(of))), queue.slots(place)))
        if isinstance(found, Result):
            queue.end(place, number, "refused", found.cause)
            return found.refusal
        run_dir = prepared(found, os.environ)
    except RegimenError as error:
        queue.end(place, number, "refused", one_line(str(error)))
        return error.exit_code
    if not queue.begin(place, number, run_dir, on):
        if found.run_dir is None:
            remove_run_dir(run_dir.path)
        return 0
    with run_dir.launcher_log.open("ab") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    try:
        return supervise_folder(run_dir.path)
    except RegimenError as error:
        print(f"regimen: {error}", file=sys.stderr, flush=True)
        return error.exit_code
    finally:
        scheduler.ensure_running(place, os.environ)
