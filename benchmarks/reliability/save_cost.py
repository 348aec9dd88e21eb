"""F16: what saving costs a run that trains every weight: hashes and fsync included, and nothing else on the GPU or the disk meanwhile.

    PYTHONPATH=. python benchmarks/reliability/save_cost.py --folder FOLDER --seconds 280 --out RESULTS.jsonl          one GPU; FOLDER on a disk
    PYTHONPATH=. python benchmarks/reliability/save_cost.py --folder FOLDER --seconds 280 --out RESULTS.jsonl --waited without checkpoint.background
    PYTHONPATH=. python benchmarks/reliability/save_cost.py --folder FOLDER --seconds 120 --tiny --step-seconds 0.3       a rehearsal on a CPU

First the bytes of one checkpoint are written to FOLDER by dd, with fsync. From one save to the next are then 100 steps, or as many as take twice that
time, whichever is longer; the time of a step is that of the plan, or --step-seconds. Then the run trains until its third checkpoint is committed, and
is killed. A save has cost what its steps, from its begin to the first one after the commit, took beyond as many steps with no save in flight.
"""

import argparse
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.reliability.kills_in_training import whole
from benchmarks.reliability.live_runs import clean_up, run_in, start, wait_for, wait_no_longer_than
from benchmarks.running.cell_runs import surroundings
from conf.records import read_lines
from conf.run_dir import RunDir
from launcher.composition.compose import compose
from launcher.gate.judge import Judged, judge_run
from launcher.memory.host import IN_FLIGHT

SAVES, LEAST = 3, 100  # steps from one save to the next, at least
BLOCK = 2**24  # bytes that dd writes at a time
CHARACTERS = 4300  # of an answer, each a token: more than data.cutoff
ONE_GPU = (
    *("model=llama3.2_1b", "model.init=random", "model.path=null", "model.tokenizer=bytes", "regime=full", "training.precision=bf16_amp"),
    *("data.cutoff=1024", "training.micro_batch=16", "training.gradient_checkpointing=false", "training.kernels=fused", "training.loss=fused"),
    *("sharding=ddp", "node.host_memory=128000000000"),
)
TINY = (
    *("model=demo", "node=cpu", "regime=full", "training.precision=fp32", "sharding=ddp", "data.cutoff=128", "training.micro_batch=2"),
    *("model.architecture.hidden_size=512", "model.architecture.intermediate_size=1024"),
)


def keys_of(options: argparse.Namespace, folder: Path) -> tuple[str, ...]:
    return (
        *(TINY if options.tiny else ONE_GPU),
        *("cluster.ranks_per_node=1", "data=files", f"data.folder={folder}", "data.sets=[answers.json]", "data.template=chatml"),
        *("data.validation_share=0", "evaluation.interval=0", "evaluation.answers=0", "training.max_steps=100000", "training.fit=off"),
        *("optim.scheduler=constant", "optim.warmup=0", f"checkpoint.background={str(not options.waited).lower()}"),
    )


def write_data(folder: Path) -> None:
    answers = [{"instruction": f"Go on with {number}.", "input": "", "output": "abcdefg " * (CHARACTERS // 8)} for number in range(64)]
    (folder / "answers.json").write_text(json.dumps(answers))


def saved_bytes(judged: Judged) -> int:
    """What a checkpoint holds, by the plan; the manifests say it again."""
    return next(term.bytes for term in judged.estimate.disk_terms if term.name == "checkpoint in the making")


def raw_seconds(folder: Path, size: int) -> float:
    """dd of so many bytes that no file system can make smaller, and fsync."""
    source, target = folder / "source", folder / "target"
    with source.open("wb") as file:
        for _ in range(16):
            file.write(os.urandom(BLOCK))
    began = time.monotonic()
    written = 0
    while written < size:
        count = min(16, math.ceil((size - written) / BLOCK))
        last = written + count * BLOCK >= size
        subprocess.run(
            ["dd", f"if={source}", f"of={target}", f"bs={BLOCK}", f"count={count}", "oflag=append", "conv=notrunc" + ",fsync" * last],
            check=True,
            capture_output=True,
        )
        written += count * BLOCK
    seconds = time.monotonic() - began
    source.unlink()
    target.unlink()
    return seconds


def commits(run_dir: RunDir) -> dict[int, dict[str, Any]]:
    entries = read_lines(run_dir.journal, lambda entry: entry.get("event") == "commit").entries
    return {entry["step"]: entry for entry in entries}


def measured(times: dict[int, float], committed: dict[int, float], interval: int) -> dict[str, Any]:
    """Of the moment at which each step was logged, which is before its save, and of each commit: what the saves have cost, in seconds."""
    half, last = interval // 2, max(times)
    ends = {step: next((later for later in sorted(times) if later > step and times[later] > at), last) for step, at in sorted(committed.items())}
    flying = {each for step, end in ends.items() for each in range(step + 1, end + 1)}
    quiet = [times[step] - times[step - 1] for step in range(half + 1, last + 1) if step not in flying and step - 1 in times and step in times]
    usual = statistics.fmean(quiet)
    saves = [
        {
            "step": step,
            "pause": round(times[step + 1] - times[step] - usual, 3),
            "in_flight": round(committed[step] - times[step], 3),
            "cost": round(times[end] - times[step] - (end - step) * usual, 3),
        }
        for step, end in ends.items()
    ]
    costs = [save["cost"] for save in saves]
    return {
        "step_seconds": round(usual, 5),
        "step_seconds_median": round(statistics.median(quiet), 5),
        "quiet_steps": len(quiet),
        "interval_seconds": round(interval * usual, 2),
        "saves": saves,
        "prepared": round(times[half] - times[2] - (half - 2) * usual, 3),  # beyond usual steps, from the second one to half of the first interval
        "overhead": round(statistics.fmean(costs) / (interval * usual), 5),
    }


def steps_logged(run_dir: RunDir) -> dict[int, float]:
    return {entry["step"]: entry["time"] for entry in whole(run_dir.progress) if "loss" in entry}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True, help="on the disk that is to be measured")
    parser.add_argument("--out", type=Path, default=None, help="a line is appended to this file")
    parser.add_argument("--seconds", type=float, default=280, help="end after this time, with the saves that there are")
    parser.add_argument("--step-seconds", type=float, default=None)
    parser.add_argument("--least", type=int, default=LEAST, help="steps from one save to the next, at least")
    parser.add_argument("--waited", action="store_true", help="training waits for each save")
    parser.add_argument("--tiny", action="store_true", help="on a CPU")
    options = parser.parse_args(argv)
    wait_no_longer_than(options.seconds)
    options.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="regimen-saves-", dir=options.folder, ignore_cleanup_errors=True) as made:
        result = cost(options, Path(made).absolute())
    if options.out is not None:
        with options.out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(result) + "\n")
    print(json.dumps(result))
    return 0 if len(result.get("saves", ())) >= SAVES else 1


def cost(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    write_data(folder)
    keys = keys_of(options, folder)
    judged = judge_run(compose([*keys, f"output={folder / 'judged'}"]))
    size = saved_bytes(judged)
    raw = raw_seconds(folder, size)
    step = options.step_seconds or judged.expectations.step.seconds
    interval = max(options.least, math.ceil(2 * raw / step * 1.1))  # a tenth more: the step may be faster than predicted
    found: dict[str, Any] = {
        **{"figure": "F16 cost of saving", "background": not options.waited, "tiny": options.tiny, "keys": list(keys), "bytes": size},
        **{"raw_seconds": round(raw, 2), "raw_rate": round(size / raw), "predicted_step": round(step, 4), "interval_steps": interval},
        "copied": sum(term.bytes for term in judged.estimate.host_terms if term.name == IN_FLIGHT),
        "safetensors": version("safetensors"),
        **surroundings(),
    }
    print(json.dumps(found), flush=True)
    process = start(folder, "", *keys, f"checkpoint.interval={interval}")
    run_dir: RunDir | None = None
    try:
        run_dir = wait_for(lambda: run_in(folder), "run folder", process=process)
        try:
            wait_for(lambda: len(commits(run_dir)) >= SAVES, "third commit", 0.2, process)
            ended = max(steps_logged(run_dir))
            wait_for(lambda: max(steps_logged(run_dir)) > ended + 2, "step after it", 0.2, process)
        except TimeoutError as error:
            print(f"stopped early: {error}", flush=True)
        done = commits(run_dir)
        if not done:
            return {**found, "error": f"no checkpoint was committed in {options.seconds:.0f} s: {(folder / 'said').read_text()[-1500:]}"}
        figures = measured(steps_logged(run_dir), {step: entry["time"] for step, entry in done.items()}, interval)
        sizes = [entry["size"] for entry in done.values()]
        return {**found, **figures, "committed_bytes": max(sizes), "hash_and_fsync": [entry["seconds"] for entry in done.values()]}
    finally:
        process.kill()
        clean_up(run_dir, process)
        shutil.rmtree(folder / "outputs", ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
