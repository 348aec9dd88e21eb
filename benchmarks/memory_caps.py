"""Finds, by bisection to 0.5 %, the smallest GPU on which a job still runs, and runs it again 1 and 2 % below and above.

    python benchmarks/memory_caps.py --out RESULTS.jsonl            one H200; a cap on torch's allocator makes it smaller
    python benchmarks/memory_caps.py --verdicts RESULTS.jsonl       no GPU: what the gate says at -10 to +10 % of each need

Every trial is a run of its own, by the trainer itself (capped.py); it ran if it ended with 0, and it did not fit if it ended with 80.
"""

import argparse
import json
import os
import shutil
import subprocess
import threading
import time
from dataclasses import replace
from pathlib import Path

from memory_cells import GIB, Queue, overrides, write_samples
from memory_grid import CHUNKED, FULL_AMP, FULL_BF16, LORA, OFF, QLORA4, MemoryCell, cell, write_shapes
from sft_cells import surroundings

from launcher.backends import command
from launcher.compose import compose
from launcher.execute import start_fresh, write_plan
from launcher.gate import judge
from launcher.memory.constants import CUDA_CONTEXT
from launcher.plan import Judged, judge_run, plan_for

RAN, DOES_NOT_FIT = 0, 80
CAPPED = Path(__file__).with_name("capped.py")
RESOLUTION = 0.005
BELOW, ABOVE = 0.98, 1.08  # of the predicted peak: where the bisection begins
OFFSETS = (-0.10, -0.05, -0.02, -0.01, 0.01, 0.02, 0.05, 0.10)
CONFIRMED = (-0.02, -0.01, 0.01, 0.02)

JOBS = (
    cell("full_bf16", "llama3.2_1b", 4, 512, FULL_BF16),
    cell("lora", "llama3.2_1b", 2, 4096, LORA),
    cell("full_amp-8bit", "llama3.2_1b", 4, 512, FULL_AMP, "optim=adamw_8bit"),
    cell("qlora4-kept", "llama3.2_1b", 2, 2048, QLORA4, OFF),
    cell("full_amp-chunked", "llama3.2_1b", 2, 2048, FULL_AMP, CHUNKED),
    cell("full_bf16-8bit", "llama3.2_3b", 1, 2048, FULL_BF16, "optim=adamw_8bit"),
    cell("full_bf16", "llama3.2_3b", 2, 5120, FULL_BF16),
    cell("full_amp-lion-kept", "llama3.2_3b", 1, 2048, FULL_AMP, OFF, "optim=lion"),
    cell("full_bf16", "llama3.1_8b", 2, 8192, FULL_BF16),
)


def judged_job(job: MemoryCell, data: Path, shapes: Path, more: list[str]) -> Judged:
    return judge_run(compose([*overrides(job, data), "training.max_steps=4", *more], [shapes]))


def trial(job: MemoryCell, cap: int, work: Path) -> int:
    """The exit code of one run under `cap` bytes of allocator."""
    output = work / "trials" / f"{job.name.replace('/', '-')}-{cap}"
    judged = judged_job(job, work / "data", work / "shapes", ["node=auto", f"output={output}", "name=trial"])
    run_dir = start_fresh(judged)
    write_plan(plan_for(judged, run_dir), os.environ)
    started = command(judged.run, run_dir)
    at = started.argv.index("trainers") - 1
    argv = (*started.argv[:at], str(CAPPED), str(cap), *started.argv[at + 2 :])
    subprocess.run(argv, env=started.environment(os.environ), capture_output=True, check=False)
    code = json.loads(run_dir.exit_file(0).read_text())["code"] if run_dir.exit_file(0).exists() else -1
    if code not in (RAN, DOES_NOT_FIT):
        print(run_dir.rank_log(0).read_text()[-1500:], flush=True)
    shutil.rmtree(output, ignore_errors=True)
    return code


def bisect(job: MemoryCell, predicted: int, work: Path) -> dict[str, object]:
    """Caps in bytes of allocator; the need of the job is the smallest that ran, and the context."""
    trials: list[tuple[int, int]] = []

    def runs(cap: int) -> bool:
        trials.append((cap, trial(job, cap, work)))
        if trials[-1][1] not in (RAN, DOES_NOT_FIT):
            raise RuntimeError(f"{job.name} ended with {trials[-1][1]} at {cap}")
        return trials[-1][1] == RAN

    low, high = int(BELOW * predicted), int(ABOVE * predicted)
    while (high - low) / high > RESOLUTION:
        middle = (low + high) // 2
        low, high = (low, middle) if runs(middle) else (middle, high)
    need = high + CUDA_CONTEXT
    confirmed = {f"{offset:+.2f}": runs(int(need * (1 + offset)) - CUDA_CONTEXT) for offset in CONFIRMED}
    return {"trials": trials, "smallest_cap": high, "need": need, "confirmed": confirmed}


def verdicts(record: dict, data: Path, shapes: Path) -> dict[str, bool]:
    """Whether the gate's own estimate permits the job on a card of the need and so much more."""
    job = next(job for job in JOBS if job.name == record["cell"])
    judged = judged_job(job, data, shapes, ["node=h200_141", "node.gpus=1", "gate.mode=enforce", "gate.floor=advisory"])
    found = {}
    for offset in OFFSETS:
        card = replace(judged.run.node, gpu_memory=int(record["need"] * (1 + offset)))
        checks = judge(replace(judged.run, node=card), judged.facts, judged.estimate).checks
        found[f"{offset:+.2f}"] = all(check.passed for check in checks if check.rule == "GPU_PEAK")
    return found


def report(records: list[dict], data: Path, shapes: Path) -> None:
    right = total = 0
    for record in records:
        found = verdicts(record, data, shapes)
        wrong_permits = [offset for offset, permitted in found.items() if permitted and float(offset) < 0]
        wrong_refusals = [offset for offset, permitted in found.items() if not permitted and float(offset) >= 0.02]
        right += sum(permitted == (float(offset) > 0) for offset, permitted in found.items())
        total += len(found)
        print(f"{record['cell']:<50} need {record['need'] / GIB:6.2f} GiB  permits below: {wrong_permits}  refusals from +2 %: {wrong_refusals}")
    print(f"{right} of {total} verdicts agree with the need")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--verdicts", type=Path)
    parser.add_argument("--only", nargs="*", default=[], help="parts of job names")
    parser.add_argument("--concurrent", type=int, default=8)
    parser.add_argument("--work", type=Path, default=Path("/tmp/regimen-caps"))
    arguments = parser.parse_args()
    shapes, data = write_shapes(arguments.work / "shapes"), write_samples(arguments.work / "data")
    if arguments.verdicts:
        report([json.loads(line) for line in arguments.verdicts.read_text().splitlines()], data, shapes)
        return 0
    jobs = {job.name: job for job in JOBS if not arguments.only or any(part in job.name for part in arguments.only)}
    predicted = {name: judged_job(job, data, shapes, ["node=h200_141", "node.gpus=1"]).estimate.allocated for name, job in jobs.items()}
    queue = Queue({name: int(ABOVE * size) + 2 * CUDA_CONTEXT for name, size in predicted.items()}, 136 * GIB, arguments.concurrent)
    facts, began, writing = surroundings(), time.monotonic(), threading.Lock()

    def work() -> None:
        while (name := queue.take()) is not None:
            record = {"cell": name, "predicted": predicted[name], **bisect(jobs[name], predicted[name], arguments.work), "surroundings": facts}
            with writing, arguments.out.open("a") as file:
                file.write(json.dumps(record) + "\n")
            share = record["smallest_cap"] / predicted[name]
            print(f"{time.monotonic() - began:6.0f} s  {name}: the smallest cap is {share:.4f} of the predicted peak", flush=True)
            queue.give_back(name)

    threads = [threading.Thread(target=work) for _ in range(arguments.concurrent)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
