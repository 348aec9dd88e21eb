"""What the scripts of this folder share: numbered trials with a seed, results appended line by line, k of N at the end."""

import argparse
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from threading import Lock
from typing import Any

Result = dict[str, Any]  # `held`: what was promised; `landed`: the fault met what it was meant for
Trial = Callable[[int, int], Result | list[Result]]  # number of the trial, seed; several results where one run meets several faults


def arguments(about: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=about.splitlines()[0])
    parser.add_argument("--trials", type=int, default=20, help="trials in all, the ones of earlier calls included")
    parser.add_argument("--first", type=int, default=0, help="number of the first trial of this call")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=None, help="a line for each trial is appended to this file")
    parser.add_argument("--seconds", type=float, default=1e9, help="start no trial after this time")
    parser.add_argument("--broken", action="store_true", help="with the protection taken out: the script must then end with 1")
    return parser


def run(options: argparse.Namespace, name: str, trial: Trial, threads: ThreadPoolExecutor | None = None, numbers: Sequence[int] | None = None) -> int:
    """Trials in order, side by side where there are threads for it, as long as the time lasts. One that did not land proves nothing.

    `numbers`: of these trials alone.

    Returns 0 where all that landed held, and at least one did; otherwise 1. An exception of a trial is raised when those beside it have ended.
    """
    writing, found, start = Lock(), list[Result](), time.monotonic()

    def make(number: int) -> None:
        if time.monotonic() - start > options.seconds:
            return
        began = time.monotonic()
        results = trial(number, options.seed)
        seconds = round(time.monotonic() - began, 2)
        for result in results if isinstance(results, list) else [results]:
            keep({"figure": name, "trial": number, "seed": options.seed, "broken": options.broken, **result, "seconds": seconds})

    def keep(result: Result) -> None:
        why = result.pop("why") if result["held"] else result["why"]  # it is of one that did not hold
        with writing:
            found.append(result)
            if options.out is not None:
                with options.out.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(result) + "\n")
            if result["landed"] and not result["held"]:
                print(f"trial {result['trial']}: {why}", flush=True)

    numbers = range(options.first, options.trials) if numbers is None else numbers
    if threads is None:
        for number in numbers:
            make(number)
    else:
        made = [threads.submit(make, number) for number in numbers]
        wait(made)
        for each in made:
            each.result()
    landed = sum(result["landed"] for result in found)
    held = sum(result["landed"] and result["held"] for result in found)
    print(
        f"{name}: {held} of {landed} held, seed {options.seed}; {len(found) - landed} did not land{' (broken on purpose)' if options.broken else ''}",
        flush=True,
    )
    return 0 if landed and held == landed else 1


def child(act: Callable[[], int]) -> int:
    """The pid of a fork of this process, which has imported everything already. It acts, and ends without any of this process's own endings."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        code = act()
    finally:
        os._exit(code)


def files_of(folder: Path) -> Iterator[Path]:
    yield from sorted(path for path in folder.rglob("*") if path.is_file())
