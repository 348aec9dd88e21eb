"""Says what a run does outside of its steps, so that nobody waits before a bar that does not move."""

import json
import time
from collections.abc import Sequence
from itertools import pairwise

from conf import journal
from conf.records import is_doing, read_lines
from conf.run_dir import RunDir
from trainers.ranks.place import Place

STARTING = "starting the ranks"


def say_doing(run_dir: RunDir, place: Place, doing: str) -> None:
    """From now on the run does this. Rank 0 speaks for all."""
    if not place.leads:
        return
    run_dir.layouts.mkdir(exist_ok=True)
    with run_dir.doing.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"time": round(time.time(), 3), "doing": doing}) + "\n")


def start_up(run_dir: RunDir) -> str:
    """What has been said so far of this attempt, in one sentence; from its start in the journal on, where that has one."""
    said = [(entry["time"], entry["doing"]) for entry in read_lines(run_dir.doing, is_doing).entries]
    starts = [(float(event["time"]), STARTING) for event in journal.events(run_dir) if event["event"] == "start"]
    return start_up_words([*starts[-1:], *said])


def start_up_words(said: Sequence[tuple[float, str]]) -> str:
    """Of moments in seconds since the epoch, and what was begun at each: what took how long until the last of them.

    The clock may be set meanwhile; nothing takes less than no time.
    """
    phases = [(doing, max(0.0, until - since)) for (since, doing), (until, _) in pairwise(said)]
    parts = ", ".join(f"{doing} {seconds:.1f}" for doing, seconds in phases)
    return f"Start-up took {sum(seconds for _, seconds in phases):.1f} s: {parts}."
