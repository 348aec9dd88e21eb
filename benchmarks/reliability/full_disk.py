"""F9: the disk fills up while a run saves. Old commits stay whole, the run ends with 74 and says why, and it goes on when there is room.

    python -m benchmarks.reliability.full_disk [--trials 20] [--seed 0] [--out benchmarks/results/reliability/full_disk.jsonl] [--broken]

As root: each trial mounts a tmpfs of its own. A rank (trainers/__main__.py, in a fork that has imported it already) trains a tiny model there and
commits every step. At a random moment another thread takes the rest of the disk, less a random part of a checkpoint. Then the rank's exit file, the
launcher's outcome and every commit are looked at; the filler is removed, and a second rank must finish the run with the weights of a run that nobody
disturbed. --broken takes out what is reserved, the look at the free disk, and what is known of a full disk's errors.
"""

import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any
from unittest import mock

from benchmarks.reliability.trials import arguments, child, run
from conf.committed import committed, faults, read_manifest
from conf.exit_codes import DISK, DONE
from conf.reserve import RUN_BYTES, reserve
from conf.run_dir import RunDir, save_run
from launcher.launch.outcome import outcome_of
from tests.described import described
from trainers import __main__ as rank
from trainers import run as training  # noqa: F401 - imported once, for all forks

SIZE = 12 * 2**20
STEPS = 6
RUN = (
    *("model=demo", "data=demo", "data.max_samples=64", "node=cpu", "cluster.ranks_per_node=1", "training.precision=fp32", "regime=full"),
    *("training.micro_batch=4", f"training.max_steps={STEPS}", "evaluation.interval=0", "checkpoint.interval=1", "optim.warmup=0"),
    *("model.architecture.hidden_size=64", "model.architecture.intermediate_size=128"),
)
PAUSE = 0.0005  # seconds
BROKEN = {
    "trainers.ranks.causes.is_full_disk": False,
    "trainers.callbacks.committing.refuse_full_disk": None,
    "trainers.run.refuse_full_disk": None,
    "trainers.__main__.reserve": None,
}


def begun(run_dir: RunDir) -> RunDir:
    for folder in (run_dir.checkpoints, run_dir.logs, run_dir.exits, run_dir.layouts, run_dir.peaks):
        folder.mkdir(parents=True, exist_ok=True)
    reserve(run_dir.reserve, RUN_BYTES)
    save_run(described(*RUN), run_dir)
    return run_dir


def trained(run_dir: RunDir, broken: bool = False) -> int:
    """The exit status of a rank in a process of its own."""
    for path in run_dir.exits.iterdir():
        path.unlink()

    def act() -> int:
        sys.argv = ["trainers", str(run_dir.path)]
        with ExitStack() as taken_out:
            for name, instead in BROKEN.items() if broken else ():
                taken_out.enter_context(mock.patch(name, return_value=instead))
            return rank.main()

    return os.waitstatus_to_exitcode(os.waitpid(child(act), 0)[1])


class Filler(threading.Thread):
    """Takes the disk once `step` is committed and `late` of the next save has passed; leaves `leave` bytes."""

    def __init__(self, run_dir: RunDir, step: int, late: float, leave: int) -> None:
        super().__init__(daemon=True)
        self.run_dir, self.step, self.late, self.leave = run_dir, step, late, leave
        self.path = run_dir.path.parent / "of-others"
        self.ended = False

    def run(self) -> None:
        while not self.run_dir.checkpoint(self.step).exists():
            if self.ended:
                return
            time.sleep(PAUSE)
        time.sleep(self.late)
        with self.path.open("wb", buffering=0) as file:
            while not self.ended:
                free = shutil.disk_usage(self.path.parent).free - self.leave
                if free > 0:
                    with suppress(OSError):  # the rank was faster
                        file.write(bytes(min(free, 65536)))
                time.sleep(PAUSE)


def trial(number: int, seed: int, broken: bool, reference: bytes) -> dict[str, Any]:
    chance = random.Random(f"{seed} {number}")
    step, late, share = chance.randrange(1, STEPS - 1), chance.uniform(0.0, 0.2), chance.uniform(0.0, 1.2)
    with tempfile.TemporaryDirectory(prefix="full-disk-") as place:
        subprocess.run(("mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", place), check=True)
        try:
            run_dir = begun(RunDir(Path(place) / "run"))
            filler = Filler(run_dir, step, late, int(share * 700_000))
            filler.start()
            status = trained(run_dir, broken)
            outcome = outcome_of(run_dir, status)
            filler.ended = True
            filler.join()
            landed = filler.path.exists() and status != DONE
            left = {path.name: faults(path) for path in committed(run_dir)}
            said = outcome.exit_code == DISK and "is full" in outcome.message
            filler.path.unlink(missing_ok=True)
            again = trained(run_dir) if landed else DONE
            model = run_dir.model / "model.safetensors"
            same = model.is_file() and model.read_bytes() == reference
            held = said and left != {} and not any(left.values()) and again == DONE and same
            size = read_manifest(committed(run_dir)[0]).size
        finally:
            subprocess.run(("umount", "-l", place), check=True)
    why = f"status {status}, {outcome.exit_code}: {outcome.message}; commits {left}; then {again}, same weights: {same}"
    result = {"landed": landed, "held": held, "filled_after": step, "late": round(late, 3), "left": int(share * 700_000), "checkpoint": size}
    return {**result, "message": outcome.message, "why": why}


def main() -> int:
    options = arguments(__doc__ or "").parse_args()
    with tempfile.TemporaryDirectory(prefix="whole-") as place:
        whole = begun(RunDir(Path(place) / "run"))
        if trained(whole) != DONE:
            print(whole.rank_log(0).read_text()[-2000:], file=sys.stderr)
            return 1
        reference = (whole.model / "model.safetensors").read_bytes()
    return run(options, "F9 full disk", lambda number, seed: trial(number, seed, options.broken, reference))


if __name__ == "__main__":
    sys.exit(main())
