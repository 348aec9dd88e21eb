"""F1: SIGKILL to a process of a real run, half of the times inside a save. Does the run that goes on end with the bits of one that nobody disturbed?

    PYTHONPATH=. python benchmarks/reliability/kills_in_training.py --trials 20 --out RESULTS.jsonl                         two CPU ranks
    PYTHONPATH=. python benchmarks/reliability/kills_in_training.py --on gpu --job lora --trials 6 --out RESULTS.jsonl      a GPU
    PYTHONPATH=. python benchmarks/reliability/kills_in_training.py --on gpus --trials 12 --at-once 9 --seconds 180 --within 360 --out RESULTS.jsonl

`--first 20` goes on. A trial takes one of the jobs in turn, or the one that is named, kills the launcher, the agent or a rank at a moment drawn by
the seed, and starts the run again as often as it ends without its last step. Compared with the undisturbed run of the same job, one for each call:
the loss and the norm of the gradients of each step as they were written, the rows that each step of each rank was made of, and the hash of each file
of the final model. No more steps may be lost than lie between two checkpoints (F4). The kill landed in a save where a checkpoint was being written
then and was not committed. The broken variant goes on with the random numbers of another place.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from benchmarks.reliability.live_runs import alive, clean_up, run_in, start, wait_for, wait_no_longer_than
from benchmarks.reliability.orphans import agents, born
from benchmarks.reliability.trials import arguments, run
from conf.exit_codes import DONE
from conf.records import read_lines
from conf.run_dir import RunDir

SAME = ("evaluation.interval=0", "evaluation.answers=0", "data.validation_share=0")


@dataclass(frozen=True)
class Length:
    """Of a run, in steps, and after which of them it is killed: in the save of one, or in the training that follows one."""

    steps: int
    interval: int
    in_save: tuple[int, ...]
    between: tuple[int, ...]

    def keys(self) -> tuple[str, ...]:
        return (f"training.max_steps={self.steps}", f"checkpoint.interval={self.interval}")


USUAL = Length(12, 3, (3, 6, 9), tuple(range(3, 11)))
# Two checkpoints of 7 GB are all that a run writes, so that several fit a machine; a kill in the second save leaves the first.
SHORT = Length(6, 3, (6,), (4, 5))
LENGTHS = {"cpu": USUAL, "gpu": USUAL, "gpus": SHORT}
DROPPED = ("regime=lora", "regime.dropout=0.1")  # random numbers in each step
ON_CPU = (
    *(
        "model=demo",
        "data=demo",
        "evaluation.at_start=false",
        "evaluation.at_end=false",
        "node=cpu",
        "cluster.ranks_per_node=2",
        "training.micro_batch=2",
    ),
    *("data.max_samples=64", "model.architecture.hidden_size=64", "model.architecture.intermediate_size=128"),
)
ON_GPU = (
    *("model=qwen2.5_0.5b", "model.init=random", "model.path=null", "model.tokenizer=bytes", "data=demo", "data.max_samples=64"),
    *("cluster.ranks_per_node=1", "training.micro_batch=4", "data.cutoff=512", "training.deterministic=true"),
)
ON_TWO = (
    *("model=qwen2.5_0.5b", "model.init=random", "model.path=null", "model.tokenizer=bytes", "data=demo", "data.max_samples=64"),
    *("cluster.ranks_per_node=2", "training.micro_batch=2", "data.cutoff=512", "training.deterministic=true"),
    *("regime=full", "training.precision=bf16_amp", "training.fit=off"),  # what is free beside other runs must choose nothing
)
JOBS: dict[str, dict[str, tuple[str, ...]]] = {
    "cpu": {
        "lora-ddp": (*ON_CPU, *DROPPED, "sharding=ddp"),
        "full-zero3": (*ON_CPU, "regime=full", "sharding=zero3"),
        "lora-packed-workers": (*ON_CPU, *DROPPED, "sharding=ddp", "data.packing=true", "data.cutoff=128", "training.dataloader_workers=2"),
        "full-background": (*ON_CPU, "regime=full", "sharding=ddp", "checkpoint.background=true"),
        "full-zero2-accumulated": (*ON_CPU, "regime=full", "sharding=zero2", "training.accumulation=2"),
    },
    "gpu": {
        "lora": (*ON_GPU, *DROPPED),
        "full": (*ON_GPU, "regime=full", "training.precision=bf16_amp"),
        "full-background": (*ON_GPU, "regime=full", "training.precision=bf16_amp", "checkpoint.background=true"),
        "full-zero3": (*ON_GPU, "regime=full", "training.precision=bf16_amp", "sharding=zero3"),
        "bf16-zero3": (*ON_GPU, "regime=full", "training.precision=bf16", "sharding=zero3"),
        "bf16-fsdp2": (*ON_GPU, "regime=full", "training.precision=bf16", "sharding=fsdp2"),
        "qlora4": (*ON_GPU, "regime=qlora", "regime.bits=4", "regime.dropout=0.1"),
    },
    "gpus": {
        "two-zero2": (*ON_TWO, "sharding=zero2"),
        "two-zero3": (*ON_TWO, "sharding=zero3"),
        "two-fsdp2": (*ON_TWO, "sharding=fsdp2"),
    },
}
# Imported by every Python process that finds it on its path; only ranks are changed.
BROKEN = """
import sys
if sys.orig_argv[-3:-1] == ["-m", "trainers"] and "torch.distributed.run" not in sys.orig_argv:
    import transformers
    transformers.Trainer._load_rng_state = lambda *_: None
"""
MOST_STARTS = 6


def whole(path: Path) -> list[dict[str, Any]]:
    return read_lines(path, lambda entry: "step" in entry).entries


def left_by(run_dir: RunDir) -> dict[str, Any]:
    """What a run must leave the same whatever happened to it on its way."""
    entries = whole(run_dir.progress)
    steps = {entry["step"]: (entry["loss"], entry["grad_norm"]) for entry in entries if "loss" in entry}
    rows = {path.name: {line["step"]: line["rows"] for line in whole(path)} for path in sorted((run_dir.path / "rows").glob("*.jsonl"))}
    weights = {path.name: sha256(path.read_bytes()).hexdigest() for path in sorted(run_dir.model.glob("*.safetensors"))}
    return {"losses and gradients": steps, "rows": rows, "weights": weights}


def keys_of(on: str, job: str) -> tuple[str, ...]:
    return (*SAME, *LENGTHS[on].keys(), *JOBS[on][job])


def undisturbed(on: str, job: str, root: Path) -> dict[str, Any]:
    """What a run of this job leaves that nobody disturbs."""
    folder = root / f"undisturbed-{job}"
    folder.mkdir()
    process = start(folder, "", *keys_of(on, job))
    try:
        wait_for_end(process)
        if process.returncode != DONE:
            raise RuntimeError(f"{job}: the undisturbed run ended with {process.returncode}: {(folder / 'said').read_text()[-2000:]}")
        run_dir = run_in(folder)
        assert run_dir is not None
        return left_by(run_dir)
    finally:
        clean_up(run_in(folder), process)


def wait_for_end(process: "subprocess.Popen[bytes]") -> None:
    wait_for(lambda: process.poll() is not None, "end of the command line")


def being_written(run_dir: RunDir) -> bool:
    return any(run_dir.checkpoints.glob(".*/checkpoint-*"))


def step_of(run_dir: RunDir) -> int:
    return max((entry.get("step", 0) for entry in whole(run_dir.progress)), default=0)


def victim_of(run_dir: RunDir, name: str, launcher: int) -> int | None:
    found = [launcher] if name == "launcher" else agents(run_dir) if name == "agent" else born(run_dir)
    return found[-1] if found else None


def trial(
    number: int, seed: int, on: str, jobs: list[str], saves: bool, broken: bool, root: Path, reference: Callable[[str], dict[str, Any]]
) -> dict[str, Any]:
    """`saves`: the kill is to meet a save, whatever the number of the trial."""
    chance = random.Random(f"{seed} {number}")
    job, victim, in_save = jobs[number % len(jobs)], chance.choice(("launcher", "agent", "rank")), saves or number // len(jobs) % 2 == 1
    length = LENGTHS[on]
    moment = chance.choice(length.in_save if in_save else length.between)
    folder = Path(tempfile.mkdtemp(prefix=f"trial-{number}-", dir=root))
    found: dict[str, Any] = {"on": on, "job": job, "victim": victim, "in_save": in_save, "step": moment}
    process = start(folder, "", *keys_of(on, job))
    run_dir: RunDir | None = None
    try:
        run_dir = wait_for(lambda: run_in(folder), "run folder", process=process)
        wait_for(lambda: step_of(run_dir) >= moment, f"step {moment}", process=process)
        if in_save:
            wait_for(lambda: being_written(run_dir), "save", 0.0, process)
        else:
            time.sleep(chance.uniform(0, 0.2))
        pid = victim_of(run_dir, victim, process.pid)
        landed = pid is not None and process.poll() is None
        if pid is not None:
            os.kill(pid, signal.SIGKILL)
        if in_save:
            landed = landed and being_written(run_dir)
        wait_for_end(process)
        wait_for(lambda: not alive(run_dir), "end of all that was started")
        reached, starts = step_of(run_dir), 1
        while process.returncode != DONE and starts < MOST_STARTS:
            process = start(folder, BROKEN if broken else "", f"resume={run_dir.path}")
            wait_for_end(process)
            starts += 1
        expected, lost = reference(job), reached - went_on_from(run_dir)
        differing = [name for name, value in left_by(run_dir).items() if value != expected[name]]
        why = f"{job}, {victim} killed at step {moment}: {lost} steps lost, other {', '.join(differing) or 'nothing'} after {starts} starts"
        if process.returncode != DONE:
            why = f"{why}; it ended with {process.returncode} and said: {(folder / 'said').read_text(errors='replace')[-1000:]}"
        held = process.returncode == DONE and not differing and (not landed or lost <= length.interval)
        found |= {"landed": landed, "held": held, "starts": starts, "lost_steps": lost}
        return {**found, "first_differing_step": first_difference(run_dir, expected), "why": why}
    finally:
        clean_up(run_dir, process)
        shutil.rmtree(folder, ignore_errors=True)


def went_on_from(run_dir: RunDir) -> int:
    """The step of the checkpoint that the second start went on from; 0 where there was none yet, or no second start."""
    return next((entry["resumed_from"] for entry in whole(run_dir.progress) if "resumed_from" in entry), 0)


def first_difference(run_dir: RunDir, expected: dict[str, Any]) -> int | None:
    steps = left_by(run_dir)["losses and gradients"]
    return next((step for step, value in expected["losses and gradients"].items() if steps.get(step) != value), None)


def main() -> int:
    parser = arguments(__doc__ or "")
    parser.add_argument("--on", choices=[*JOBS], default="cpu")
    parser.add_argument("--job", help="this one alone", choices=[name for jobs in JOBS.values() for name in jobs])
    parser.add_argument("--in-save", action="store_true", help="every kill is inside a save (F2 through the command line)")
    parser.add_argument("--at-once", type=int, default=1, help="trials side by side; the undisturbed runs are among them")
    parser.add_argument("--within", type=float, default=1e9, help="end whatever still runs after this many seconds")
    options = parser.parse_args()
    wait_no_longer_than(options.within)
    jobs = [options.job] if options.job else [*JOBS[options.on]]
    with tempfile.TemporaryDirectory(prefix="regimen-kills-", ignore_cleanup_errors=True) as made, ThreadPoolExecutor(options.at_once) as threads:
        root = Path(made)
        references: dict[str, Future[dict[str, Any]]] = {job: threads.submit(undisturbed, options.on, job, root) for job in jobs}
        return run(
            options,
            "kills in training",
            lambda number, seed: trial(number, seed, options.on, jobs, options.in_save, options.broken, root, lambda job: references[job].result()),
            threads,
        )


if __name__ == "__main__":
    sys.exit(main())
