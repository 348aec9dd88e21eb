"""Says what a run does outside of its steps, so that nobody waits before a bar that does not move."""

import json
import time

from conf.run_dir import RunDir
from trainers.ranks.place import Place


def say_doing(run_dir: RunDir, place: Place, doing: str) -> None:
    """From now on the run does this. Rank 0 speaks for all."""
    if not place.leads:
        return
    run_dir.layouts.mkdir(exist_ok=True)
    with run_dir.doing.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"time": round(time.time(), 3), "doing": doing}) + "\n")
