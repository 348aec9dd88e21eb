"""Finds the smallest GPU on which a job still runs, to 0.5 %, and runs it again 1 and 2 % below and above.

    python -m benchmarks.memory.caps --out TRIALS.jsonl --bases FOLDER --concurrent 12      H200s; a cap on torch's allocator makes them smaller
    python -m benchmarks.memory.caps --jobs mixtures_and_families --out TRIALS.jsonl
    python -m benchmarks.memory.caps --verdicts TRIALS.jsonl                                no GPU: what the gate says at -10 to +10 % of each need

Every trial is a run of its own, by the trainer itself (capped.py), and a line of its own; it ran if it ended with 0, and it did not fit if it ended
with 80. Trials that the file or an --earlier one holds are not made again.
"""

import argparse
import json
import shutil
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.memory.cells import BASES, GIB, MORE_SHAPES, overrides, write_samples
from benchmarks.memory.chosen import FULL_AMP, FULL_BF16, LORA, OFF, QLORA4, MemoryCell, cell, write_shapes
from benchmarks.memory.from_files import filed
from benchmarks.running.cell_runs import run_by, surroundings
from benchmarks.running.processes import Room, environment_for
from launcher.composition.compose import compose
from launcher.gate.judge import Judged, judge_run
from launcher.gate.verdict import judge
from launcher.memory.constants import CUDA_CONTEXT

RAN, DOES_NOT_FIT = 0, 80
CAPPED = Path(__file__).with_name("capped.py")
RESOLUTION = 0.005
STEP = 0.0047  # between trials of one round: finer than the resolution, so that one round is enough where the need lies among them
FIRST = (1 - STEP / 2, 1 + STEP / 2, 1 + 3 * STEP / 2)  # of the predicted peak: two jobs needed 1.002 and 1.005 of it
OFFSETS = (-0.10, -0.05, -0.02, -0.01, 0.01, 0.02, 0.05, 0.10)
CONFIRMED = (-0.02, -0.01, 0.01, 0.02)

JOBS = (
    filed("qlora4-kept", "llama3.2_1b", 2, 2048, QLORA4, OFF),
    filed("full_amp-8bit", "llama3.2_1b", 4, 512, FULL_AMP, "optim=adamw_8bit"),
    filed("lora", "llama3.2_1b", 2, 4096, LORA),
    filed("full_bf16-8bit", "llama3.2_3b", 1, 2048, FULL_BF16, "optim=adamw_8bit"),
    filed("lora", "llama3.1_8b", 2, 2048, LORA),
    filed("lora-kept", "llama3.2_3b", 2, 2560, LORA, OFF),
    filed("lora-kept", "qwen2.5_1.5b", 4, 2048, LORA, OFF),
    cell("full_amp-lion-kept", "llama3.2_3b", 1, 2048, FULL_AMP, OFF, "optim=lion"),
    cell("full_bf16", "llama3.1_8b", 2, 8192, FULL_BF16),
)
MIXTURES_AND_FAMILIES = (  # quantised mixtures, and families without a table: small models of large batches, which start fast
    cell("qlora4-kept", "mixtral_cut", 8, 2048, QLORA4, OFF),
    cell("qlora4-kept", "qwen3_moe_cut", 8, 1024, QLORA4, OFF),
    cell("full_bf16-kept", "nanochat", 8, 2048, FULL_BF16, OFF),
    cell("full_bf16-kept", "starcoder2", 4, 2048, FULL_BF16, OFF),
)
SETS = {"dense": JOBS, "mixtures_and_families": MIXTURES_AND_FAMILIES}


def judged_job(job: MemoryCell, data: Path, shapes: Path, more: Sequence[str], bases: Path = BASES) -> Judged:
    return judge_run(compose([*overrides(job, data, bases), "training.max_steps=4", *more], [shapes]))


def probes(known: Mapping[int, int], predicted: int) -> list[int]:
    """Caps to try next, all at once; none where the smallest that runs is known to the resolution. `known`: cap to exit code."""
    low, high = bracket(known)
    if low is None and high is None:
        return [int(share * predicted) for share in FIRST]
    if high is None:
        return [int(low * (1 + STEP) ** steps) for steps in (1, 2, 4)]
    if low is None:
        return [int(high * (1 - STEP) ** steps) for steps in (1, 2, 4)]
    if (high - low) / high <= RESOLUTION:
        return []
    return [low + (high - low) * third // 3 for third in (1, 2)]


def bracket(known: Mapping[int, int]) -> tuple[int | None, int | None]:
    """The largest cap that did not fit and the smallest that ran."""
    failed = [cap for cap, code in known.items() if code == DOES_NOT_FIT]
    ran = [cap for cap, code in known.items() if code == RAN]
    return max(failed, default=None), min(ran, default=None)


@dataclass(frozen=True)
class Bench:
    """What all trials share."""

    work: Path
    bases: Path
    out: Path
    room: Room
    concurrent: int
    seconds: float
    facts: dict[str, object]
    turn: threading.Lock  # Hydra composes one run at a time, and lines are whole

    def trial(self, job: MemoryCell, predicted: int, cap: int) -> int | None:
        """The exit code of one run under `cap` bytes of allocator; None where it was not started."""
        with self.room.entered(self.room.queue(cap + 2 * CUDA_CONTEXT)) as devices:
            if not devices:
                return None
            code, output = self.run(job, cap, devices)
        line = {"cell": job.name, "predicted": predicted, "cap": cap, "code": code, "surroundings": self.facts}
        with self.turn, self.out.open("a") as file:
            file.write(json.dumps(line) + "\n")
        print(f"{job.name} ended with {code} at {cap / predicted:.4f} of the predicted peak", flush=True)
        if code not in (RAN, DOES_NOT_FIT):
            print(output[-1500:], flush=True)
        return code

    def run(self, job: MemoryCell, cap: int, devices: Sequence[str]) -> tuple[int, str]:
        folder = self.work / "trials" / f"{job.name.replace('/', '-')}-{cap}"
        more = ["node=auto", "node.gpus=1", f"output={folder}", "name=trial"]
        with self.turn:
            judged = judged_job(job, self.work / "data", self.work / "shapes", more, self.bases)
        run_dir, code, output = run_by((str(CAPPED), str(cap)), judged, environment_for(devices, self.concurrent), self.seconds)
        if run_dir.exit_file(0).exists():
            code, output = json.loads(run_dir.exit_file(0).read_text())["code"], run_dir.rank_log(0).read_text()
        shutil.rmtree(folder, ignore_errors=True)
        return code, output


def bisect(bench: Bench, job: MemoryCell, predicted: int, known: dict[int, int]) -> None:
    """All trials of one job; it ends early at a trial that was not started or ended otherwise."""
    bench.room.wait_until(lambda: not job.from_files or (bench.bases / job.model).is_dir())
    while caps := probes(known, predicted):
        if not tried(bench, job, predicted, known, caps):
            return
    _, high = bracket(known)
    assert high is not None, "probes() goes on until one ran"
    around = [int((high + CUDA_CONTEXT) * (1 + offset)) - CUDA_CONTEXT for offset in CONFIRMED]
    tried(bench, job, predicted, known, around)


def tried(bench: Bench, job: MemoryCell, predicted: int, known: dict[int, int], caps: Sequence[int]) -> bool:
    """Side by side where the room allows; whether every one told something."""
    new = [cap for cap in caps if cap not in known]
    with ThreadPoolExecutor(max(1, len(new))) as pool:
        codes = list(pool.map(lambda cap: bench.trial(job, predicted, cap), new))
    known.update({cap: code for cap, code in zip(new, codes, strict=True) if code is not None})
    return all(code in (RAN, DOES_NOT_FIT) for code in codes)


def verdicts(job: MemoryCell, need: int, data: Path, shapes: Path) -> dict[float, bool]:
    """Whether the gate's own estimate permits the job on a card of the need and so much more."""
    judged = judged_job(job, data, shapes, ["node=h200_141", "node.gpus=1", "gate.mode=enforce", "gate.floor=advisory"])
    found = {}
    for offset in OFFSETS:
        card = replace(judged.run.node, gpu_memory=int(need * (1 + offset)))
        checks = judge(replace(judged.run, node=card), judged.facts, judged.estimate).checks
        found[offset] = all(check.passed for check in checks if check.rule == "GPU_PEAK")
    return found


def report(jobs: Sequence[MemoryCell], lines: list[dict], data: Path, shapes: Path) -> None:
    """The need of a job is the smallest cap that ran, with the context; jobs that are not bisected to the resolution are left out."""
    right = total = 0
    for job in jobs:
        known = {line["cap"]: line["code"] for line in lines if line["cell"] == job.name}
        predicted = next((line["predicted"] for line in lines if line["cell"] == job.name), 1)
        low, high = bracket(known)
        if low is None or high is None or (high - low) / high > RESOLUTION:
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
    parser.add_argument("--jobs", choices=sorted(SETS), default="dense")
    parser.add_argument("--only", nargs="*", default=[], help="parts of job names")
    parser.add_argument("--earlier", type=Path, nargs="*", default=[], help="trials that are not made again")
    parser.add_argument("--devices", nargs="+", default=["0", "1"])
    parser.add_argument("--bases", type=Path, default=BASES, help="folder that bases.py filled")
    parser.add_argument("--concurrent", type=int, default=12)
    parser.add_argument("--room", type=int, default=134, help="GiB of each GPU that the trials may fill together")
    parser.add_argument("--seconds", type=float, default=1e6, help="start no trial after this time")
    parser.add_argument("--cell-seconds", type=float, default=150, help="end a trial after this time")
    parser.add_argument("--work", type=Path, default=Path("/tmp/regimen-caps"))
    arguments = parser.parse_args()
    shapes, data = write_shapes(arguments.work / "shapes", MORE_SHAPES), write_samples(arguments.work / "data")
    if arguments.verdicts:
        report(SETS[arguments.jobs], lines_of([arguments.verdicts]), data, shapes)
        return 0
    jobs = [job for job in SETS[arguments.jobs] if not arguments.only or any(part in job.name for part in arguments.only)]
    predicted = {job.name: judged_job(job, data, shapes, ["node=h200_141", "node.gpus=1"]).estimate.allocated for job in jobs}
    known = known_of(lines_of([arguments.out, *arguments.earlier]))
    room = Room(arguments.devices, arguments.room * GIB, arguments.concurrent)
    room.close_after(arguments.seconds)
    out, limit = arguments.out, arguments.cell_seconds
    bench = Bench(arguments.work, arguments.bases, out, room, arguments.concurrent, limit, surroundings(), threading.Lock())
    with ThreadPoolExecutor(len(jobs)) as pool:  # the largest first, as the queue of the room keeps their order
        by_size = sorted(jobs, key=lambda job: -predicted[job.name])
        list(pool.map(lambda job: bisect(bench, job, predicted[job.name], known.get(job.name, {})), by_size))
    return 0


def lines_of(paths: Sequence[Path]) -> list[dict]:
    return [json.loads(line) for path in paths if path.exists() for line in path.read_text().splitlines()]


def known_of(lines: Sequence[dict]) -> dict[str, dict[int, int]]:
    """Of each job the caps that told something, and the exit code of the run under each."""
    known: dict[str, dict[int, int]] = {}
    for line in lines:
        if line["code"] in (RAN, DOES_NOT_FIT):
            known.setdefault(line["cell"], {})[line["cap"]] = line["code"]
    return known


if __name__ == "__main__":
    raise SystemExit(main())
