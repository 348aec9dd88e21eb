"""Finds, by bisection to 0.5 %, the smallest GPU on which a job still runs, and runs it again 1 and 2 % below and above.

    python benchmarks/memory_caps.py --out TRIALS.jsonl             one H200; a cap on torch's allocator makes it smaller
    python benchmarks/memory_caps.py --verdicts TRIALS.jsonl        no GPU: what the gate says at -10 to +10 % of each need

Every trial is a run of its own, by the trainer itself (capped.py), and a line of its own; it ran if it ended with 0, and it did not fit if it ended
with 80. Trials that the file already holds are not made again.
"""

import argparse
import json
import os
import shutil
import subprocess
import threading
from dataclasses import replace
from pathlib import Path

from cell_runs import surroundings
from memory_cells import GIB, Queue, overrides, write_samples
from memory_grid import CHUNKED, FULL_AMP, FULL_BF16, LORA, OFF, QLORA4, MemoryCell, cell, write_shapes

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


class Trials:
    """What is known of one job: caps in bytes of allocator, and the exit code of the run under each."""

    def __init__(self, job: MemoryCell, predicted: int, path: Path, work: Path, facts: dict[str, object]) -> None:
        self.job, self.predicted, self.path, self.work, self.facts = job, predicted, path, work, facts
        lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        self.known = {line["cap"]: line["code"] for line in lines if line["cell"] == job.name}

    def runs(self, cap: int) -> bool:
        """Whether the job runs under `cap`, tried unless it is known."""
        if cap not in self.known:
            code = trial(self.job, cap, self.work)
            if code not in (RAN, DOES_NOT_FIT):
                raise RuntimeError(f"{self.job.name} ended with {code} at {cap}")
            self.known[cap] = code
            line = {"cell": self.job.name, "predicted": self.predicted, "cap": cap, "code": code, "surroundings": self.facts}
            with self.path.open("a") as file:
                file.write(json.dumps(line) + "\n")
            print(f"{self.job.name} {'ran' if code == RAN else 'did not fit'} at {cap / self.predicted:.4f} of the predicted peak", flush=True)
        return self.known[cap] == RAN


def bracket(trials: dict[int, int], predicted: int) -> tuple[int, int]:
    """The largest cap that did not fit and the smallest that ran; where none is known, the ends of the bisection."""
    failed = [cap for cap, code in trials.items() if code == DOES_NOT_FIT]
    ran = [cap for cap, code in trials.items() if code == RAN]
    return max(failed, default=int(BELOW * predicted)), min(ran, default=int(ABOVE * predicted))


def bisect(trials: Trials) -> None:
    while True:
        low, high = bracket(trials.known, trials.predicted)
        if (high - low) / high <= RESOLUTION:
            break
        trials.runs((low + high) // 2)
    for offset in CONFIRMED:
        trials.runs(int((high + CUDA_CONTEXT) * (1 + offset)) - CUDA_CONTEXT)


def verdicts(job: MemoryCell, need: int, data: Path, shapes: Path) -> dict[float, bool]:
    """Whether the gate's own estimate permits the job on a card of the need and so much more."""
    judged = judged_job(job, data, shapes, ["node=h200_141", "node.gpus=1", "gate.mode=enforce", "gate.floor=advisory"])
    found = {}
    for offset in OFFSETS:
        card = replace(judged.run.node, gpu_memory=int(need * (1 + offset)))
        checks = judge(replace(judged.run, node=card), judged.facts, judged.estimate).checks
        found[offset] = all(check.passed for check in checks if check.rule == "GPU_PEAK")
    return found


def report(lines: list[dict], data: Path, shapes: Path) -> None:
    """The need of a job is the smallest cap that ran, with the context; jobs that are not bisected to the resolution are left out."""
    right = total = 0
    for job in JOBS:
        known = {line["cap"]: line["code"] for line in lines if line["cell"] == job.name}
        predicted = next((line["predicted"] for line in lines if line["cell"] == job.name), 1)
        low, high = bracket(known, predicted)
        if not known or (high - low) / high > RESOLUTION:
            continue
        need = high + CUDA_CONTEXT
        found = verdicts(job, need, data, shapes)
        permits = [f"{offset:+.0%}" for offset, permitted in found.items() if permitted and offset < 0]
        refusals = [f"{offset:+.0%}" for offset, permitted in found.items() if not permitted and offset >= 0.02]
        right += sum(permitted == (offset > 0) for offset, permitted in found.items())
        total += len(found)
        share = f"{high / predicted:.4f} of the peak predicted then"
        print(f"{job.name:<45} needs {need / 1e9:5.1f} GB, {share}; permits below {permits}, refusals {refusals}")
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
    facts = surroundings()

    def work() -> None:
        while (name := queue.take()) is not None:
            bisect(Trials(jobs[name], predicted[name], arguments.out, arguments.work, facts))
            queue.give_back(name)

    threads = [threading.Thread(target=work) for _ in range(arguments.concurrent)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
