"""F2: SIGKILL inside a save. What a resume takes afterwards is whole, and no older than the last commit that was said to be done.

    python -m benchmarks.reliability.kills_in_save [--trials 500] [--seed 0] [--out benchmarks/results/reliability/kills_in_save.jsonl] [--broken]

A trial forks a process that saves one step after another as rank 0 does: files written aside, commit(), prune(). It is killed at a random moment of a
save, which is proven by what it said last: that the save began, and not that it ended. Then the next attempt clears leftovers and chooses, as
trainers/run.py does, and every byte of what it took is compared with what that step wrote. It is the protocol alone, without a model: a trial takes
milliseconds. --broken writes straight into the checkpoint's folder, the manifest first.
"""

import os
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.reliability.trials import arguments, child, files_of, run
from conf.committed import MANIFEST, Manifest, committed, sealed, step_of
from conf.run_dir import RunDir
from trainers.checkpoints.commit import clear_leftovers, commit, describe
from trainers.checkpoints.keeping import choose, prune

FILES = {"model.safetensors": 400_000, "optimizer.pt": 800_000, "global_step/rank_0.pt": 200_000, "global_step/rank_1.pt": 200_000, "state.json": 900}
BEFORE = 3  # saves that are not disturbed: something must be there to lose
BEGAN, DONE = b"b", b"d"


def contents(name: str, size: int, step: int) -> bytes:
    return random.Random(f"{name} {step}").randbytes(size)


def save(run_dir: RunDir, step: int, broken: bool) -> None:
    staged = run_dir.checkpoints / ".making" / f"checkpoint-{step}"
    for name, size in FILES.items():
        path = staged / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(contents(name, size, step))
    if broken:
        commit_in_place(staged, run_dir, step)
    else:
        commit(staged, run_dir, step, 2)
    prune(run_dir, 2, None)


def commit_in_place(staged: Path, run_dir: RunDir, step: int) -> None:
    """As trainers that write into the folder that a resume reads."""
    target = run_dir.checkpoint(step)
    target.mkdir()
    for path in files_of(staged):
        name = path.relative_to(staged)
        (target / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(path, target / name)
    files = {str(path.relative_to(target)): describe(path) for path in files_of(target)}
    (target / MANIFEST).write_text(sealed(Manifest(step, 2, files)))
    shutil.rmtree(staged)
    for older in committed(run_dir)[1:]:
        shutil.rmtree(older)


def saver(run_dir: RunDir, said: int, broken: bool) -> int:
    """Save until killed; a byte before and after each save says where it is."""
    step = 0
    while True:
        step += 1
        os.write(said, BEGAN)
        save(run_dir, step, broken)
        os.write(said, DONE)


def trial(number: int, seed: int, broken: bool, root: Path) -> dict[str, Any]:
    chance = random.Random(f"{seed} {number}")
    run_dir = RunDir(root / f"trial-{number}")
    run_dir.checkpoints.mkdir(parents=True)
    reading, said = os.pipe()
    pid = child(lambda: saver(run_dir, said, broken))
    os.close(said)
    began: list[float] = []
    heard = b""
    while heard.count(BEGAN) <= BEFORE:
        heard += os.read(reading, 1)
        began.append(time.monotonic())
    usual = (began[2 * BEFORE] - began[0]) / BEFORE
    time.sleep(chance.uniform(0.0, usual))
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    while part := os.read(reading, 64):
        heard += part
    os.close(reading)
    saved = heard.count(DONE)
    result = {"landed": heard.endswith(BEGAN), "saved": saved, "staged": any(run_dir.checkpoints.glob(".*/*/*"))}
    return {**result, **judged(run_dir, saved)}


def judged(run_dir: RunDir, saved: int) -> dict[str, Any]:
    try:
        clear_leftovers(run_dir)
        taken = choose(run_dir)
    except (OSError, ValueError) as error:
        return {"held": False, "why": f"{type(error).__name__}: {error}"}
    if taken is None:
        return {"held": False, "why": f"nothing is left of {saved} saved steps"}
    step = step_of(taken)
    differing = [name for name, size in FILES.items() if (taken / name).read_bytes() != contents(name, size, step)]
    aside = [path.name for path in run_dir.checkpoints.glob("damaged-*")]
    held = step in (saved, saved + 1) and not differing and not aside
    shutil.rmtree(run_dir.path)
    return {"held": held, "taken": step, "why": f"step {step} was taken of {saved} saved ones; differing: {differing}; damaged: {aside}"}


def main() -> int:
    options = arguments(__doc__ or "").parse_args()
    with tempfile.TemporaryDirectory(prefix="kills-in-save-") as root:
        return run(options, "F2 kills inside a save", lambda number, seed: trial(number, seed, options.broken, Path(root)))


if __name__ == "__main__":
    sys.exit(main())
