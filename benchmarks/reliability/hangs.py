"""F7: a rank of two is stopped (SIGSTOP) while it trains; when does the run say which one?

`PYTHONPATH=. python benchmarks/reliability/hangs.py --trials 20 --out benchmarks/results/reliability/hangs.jsonl`; `--first 20` goes on.
In time is what the journal has within max(3 x median step, --limit) plus 10 s of the signal: its line counts, not the end of the run. The default of
--limit is that of hang.training; a lower one, which each result names, makes a trial shorter. The broken variant watches nothing (hang.training=0),
and must be late.
"""

import os
import random
import signal
import statistics
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.reliability.live_runs import BROKEN, SMALL, clean_up, folder_for_trial, run_in, start, wait_for
from benchmarks.reliability.trials import arguments, run
from conf import journal
from conf.exit_codes import LOST_PEER
from conf.processes import stat_of
from conf.records import is_step, read_lines
from conf.run_dir import RunDir
from conf.signs import TRAINING, read_sign

MEDIANS, GRACE = 3, 10.0


def trial(number: int, seed: int, broken: bool, floor: int) -> dict[str, Any]:
    chance = random.Random(f"{seed}:{number}")
    victim, delay = chance.choice([0, 1]), chance.uniform(0, 5)
    with folder_for_trial() as made:
        folder = Path(made)
        process = start(folder, BROKEN if broken else "", *SMALL, "checkpoint.interval=0", f"hang.training={0 if broken else floor}")
        run_dir: RunDir | None = None
        try:
            run_dir = wait_for(lambda: run_in(folder), "run folder", process=process)
            wait_for(lambda: trains(run_dir, victim), "training", 0.1, process)
            time.sleep(delay)
            sign = read_sign(run_dir.sign(victim))
            assert sign is not None, "it trains"
            os.kill(sign.pid, signal.SIGSTOP)
            began = time.time()
            limit = max(floor, MEDIANS * median_step(run_dir)) + GRACE
            time.sleep(0.2)
            landed = stat_of(sign.pid)[:1] == ["T"]
            try:
                code: int | None = process.wait(2 * limit)
            except subprocess.TimeoutExpired:
                code = None
            named_at = next((event["time"] for event in journal.events(run_dir) if event["event"] == journal.Hung.event), time.time())
            seconds = round(named_at - began, 2)
            said = (folder / "said").read_text(errors="replace")
            named = f"regimen: Rank {victim} gave no sign of life" in said
            stacks = run_dir.hang_log.exists() and "trainers/run.py" in run_dir.hang_log.read_text()
            held = named and stacks and code == LOST_PEER and seconds <= limit
            why = f"rank {victim} stopped: after {seconds} s of {limit:.0f} s exit code {code}, named {named}, stacks {stacks}"
            return {
                "rank": victim,
                "hang.training": floor,
                "landed": landed,
                "held": held,
                "limit": round(limit, 2),
                "named_after": seconds,
                "code": code,
                "why": why,
            }
        finally:
            clean_up(run_dir, process)


def trains(run_dir: RunDir, rank: int) -> bool:
    sign = read_sign(run_dir.sign(rank))
    return sign is not None and sign.phase == TRAINING and sign.step >= 5


def median_step(run_dir: RunDir) -> float:
    times = [entry["time"] for entry in read_lines(run_dir.progress, is_step).entries if "loss" in entry]
    return statistics.median([after - before for before, after in pairwise(times)] or [0.0])


def main() -> int:
    parser = arguments(__doc__ or "")
    parser.add_argument("--limit", type=int, default=30, help="seconds: hang.training")
    options = parser.parse_args()
    return run(options, "F7 hangs", lambda number, seed: trial(number, seed, options.broken, options.limit))


if __name__ == "__main__":
    sys.exit(main())
