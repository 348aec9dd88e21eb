"""training.fit=auto against every permitted combination of what a job leaves open: tokens/s of each on one GPU.

    python -m benchmarks.speed.fit --out SPEEDS.jsonl --bases FOLDER --devices 0      one H200 that nothing else uses (or several: --devices 0 1)
    python -m benchmarks.speed.fit --report SPEEDS.jsonl                              the table
    python -m benchmarks.speed.fit --out SPEEDS.jsonl --tiny                          a rehearsal on a CPU

Runs start side by side and train one at a time on each GPU (timed.py), five to ten steps on samples as long as data.cutoff. Offloading is
left out: on one GPU it only adds waiting for host memory to combinations that are permitted without it. The first six jobs were measured before
there was more to choose than the micro-batch and checkpointing; NEW_JOBS leave open kernels, loss and how many layers are checkpointed too, and are
measured by --new into a file of their own.
"""

import argparse
import json
import random
import shutil
import statistics
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from benchmarks.memory.cells import BASES, tiny
from benchmarks.running.cell_runs import entries, run_by, surroundings
from benchmarks.running.processes import Room, environment_for
from conf.schema import Run
from launcher.composition.compose import compose
from launcher.facts.node import settle_node
from launcher.gate.fit import by_layers, candidates
from launcher.gate.judge import judge_recorded, judge_run
from launcher.gate.left_open import left_open
from launcher.gate.settle import settled
from launcher.memory.stages import sample_tokens
from launcher.timing.operations import step_flops

TIMED = Path(__file__).with_name("timed.py")
ROWS, CHARACTERS, WARM_UP = 320, 2200, 2


@dataclass(frozen=True)
class Job:
    name: str
    model: str
    batch: int  # effective
    length: int
    choices: tuple[str, ...]
    pairs: bool = False  # two answers a sample
    room: int | None = None  # GiB that the gate is told the GPU has, so that not every activation fits; None: all of an H200

    @property
    def step_tokens(self) -> int:
        return self.batch * self.length * (2 if self.pairs else 1)


JOBS = (
    Job("lora-1b", "llama3.2_1b", 16, 1024, ("regime=lora",)),
    Job("full_bf16-1b", "llama3.2_1b", 16, 2048, ("regime=full", "training.precision=bf16")),
    Job("lora-3b", "llama3.2_3b", 8, 2048, ("regime=lora",)),
    Job("qlora4-3b", "llama3.2_3b", 8, 1024, ("regime=qlora", "regime.bits=4")),
    Job("full_amp-0.5b", "qwen2.5_0.5b", 32, 512, ("regime=full", "training.precision=bf16_amp")),
    Job("lora-8b", "llama3.1_8b", 8, 2048, ("regime=lora",)),
)
NEW_JOBS = (
    Job("dpo-lora-0.5b", "qwen2.5_0.5b", 8, 1024, ("stage=dpo", "regime=lora"), pairs=True),
    Job("qlora4-1b", "llama3.2_1b", 8, 1024, ("regime=qlora", "regime.bits=4", "training.loss=fused")),
    Job("lora-1b-small", "llama3.2_1b", 8, 2048, ("regime=lora", "training.kernels=fused", "training.loss=fused"), room=16),
    Job("full_bf16-0.5b-small", "qwen2.5_0.5b", 8, 2048, ("regime=full", "training.precision=bf16", "training.kernels=fused"), room=14),
)


@dataclass(frozen=True)
class Combination:
    """One form of a job."""

    job: Job
    micro_batch: int
    gradient_checkpointing: bool | int
    kernels: str
    loss: str
    chosen: bool  # by fit=auto
    allocated: int  # bytes, predicted
    tokens_per_pass: int
    operations: int  # of a step
    layers: int

    @property
    def overrides(self) -> tuple[str, ...]:
        return (
            *(f"training.micro_batch={self.micro_batch}", f"training.gradient_checkpointing={self.gradient_checkpointing}"),
            *(f"training.kernels={self.kernels}", f"training.loss={self.loss}"),
        )

    @property
    def name(self) -> str:
        count = self.gradient_checkpointing
        again = f"-checkpointing{'' if count is True else count}" if count else ""
        return f"{self.job.name}/{self.micro_batch}{again}-{self.kernels}-{self.loss}"


def write_rows(folder: Path) -> Path:
    """Samples that are all longer than any cutoff here."""
    draw = random.Random(0)

    def letters() -> str:
        return "".join(draw.choices("abcdefgh ", k=CHARACTERS))

    folder.mkdir(parents=True, exist_ok=True)
    rows = [{"instruction": "Go on.", "input": "", "output": letters()} for _ in range(ROWS)]
    pairs = [{"instruction": "Go on.", "chosen": letters(), "rejected": letters()} for _ in range(ROWS)]
    (folder / "rows.json").write_text(json.dumps(rows), encoding="utf-8")
    (folder / "pairs.json").write_text(json.dumps(pairs), encoding="utf-8")
    return folder


def described(job: Job, data: Path, bases: Path) -> list[str]:
    return [
        *(f"model={job.model}", "model.init=pretrained", f"model.path={bases / job.model}", "model.tokenizer=bytes", *job.choices),
        *(
            "data=files",
            f"data.folder={data}",
            f"data.sets=[{'pairs' if job.pairs else 'rows'}.json]",
            "data.template=chatml",
            f"data.cutoff={job.length}",
        ),
        *(f"training.effective_batch={job.batch}", "training.max_steps=10", "checkpoint.interval=0", "evaluation.interval=0"),
        *("optim.scheduler=constant", "optim.warmup=0", "cluster.ranks_per_node=1"),
    ]


def combinations(job: Job, data: Path, bases: Path = BASES) -> list[Combination]:
    """Those that the gate permits on one H200, by its estimate alone."""
    given = [*described(job, data, bases), "node=h200_141", "node.gpus=1", "gate.mode=enforce", "gate.floor=advisory", "training.fit=auto"]
    given += [f"node.gpu_memory={job.room * 2**30}"] if job.room else []
    composed = compose(given)
    chosen = judge_run(composed)
    run, left = settled(composed, settle_node(composed.node, 1).node), left_open(composed, 1)
    assert left is not None
    judged = [judge_recorded(candidate) for candidate in candidates(run, ROWS, left) if candidate.sharding.name == "ddp"]
    parts = by_layers([(each.run, each.verdict) for each in judged], chosen.facts, lambda candidate: judge_recorded(candidate).verdict)
    judged += [judge_recorded(candidate) for candidate, _ in parts]
    return [
        Combination(
            job,
            each.run.training.micro_batch,
            each.run.training.gradient_checkpointing,
            each.run.training.kernels,
            each.run.training.loss,
            form(each.run) == form(chosen.run),
            each.estimate.allocated,
            each.run.training.micro_batch * sample_tokens(each.run),
            step_flops(each.facts, each.run, job.batch * sample_tokens(each.run)).hardware,
            each.facts.layers,
        )
        for each in judged
        if each.verdict.permitted
    ]


def form(run: Run) -> tuple[int, bool | int, str, str]:
    training = run.training
    return training.micro_batch, training.gradient_checkpointing, training.kernels, training.loss


@dataclass(frozen=True)
class Bench:
    """What all runs share."""

    work: Path
    bases: Path
    out: Path
    room: Room
    concurrent: int
    seconds: float
    on_gpu: bool
    small: bool
    facts: dict[str, object]
    turn: threading.Lock  # Hydra composes one run at a time, and lines are whole

    def measure(self, combination: Combination) -> None:
        """Write one line; none where the time was over."""
        self.room.wait_until(lambda: (self.bases / combination.job.model).is_dir())
        with self.room.entered(self.room.queue(1)) as devices:
            if devices:
                self.write({**as_line(combination), **self.run(combination, devices), "surroundings": self.facts})

    def run(self, combination: Combination, devices: Sequence[str]) -> dict[str, object]:
        given = [*described(combination.job, self.work / "data", self.bases), *combination.overrides, "gate.mode=off"]
        given += ["node=auto", "node.gpus=1"] if self.on_gpu else ["node=cpu"]
        given += [f"output={self.work / 'runs'}", f"name={combination.name.replace('/', '-')}", f"data.cache={self.work / 'cache'}"]
        with self.turn:
            composed = compose([*given, *(small(combination.job) if self.small else [])])
            judged = judge_run(composed)
        script = (str(TIMED), str(self.work / f"gpu-{devices[0].strip()}.lock"))
        run_dir, code, output = run_by(script, judged, environment_for(devices, self.concurrent), self.seconds)
        times = [entry["time"] for entry in entries(run_dir.path) if "loss" in entry] if run_dir.progress.exists() else []
        error = {} if code == 0 else {"error": f"{output[-500:]}\n{run_dir.rank_log(0).read_text()[-1000:] if run_dir.rank_log(0).exists() else ''}"}
        shutil.rmtree(run_dir.path, ignore_errors=True)
        return {"exit_code": code, **speed(combination, times), **error}

    def write(self, line: dict[str, object]) -> None:
        with self.turn, self.out.open("a") as file:
            file.write(json.dumps(line) + "\n")
        print(f"{line['name']:<32} {line.get('tokens_per_second', line.get('error'))} {'chosen' * bool(line['chosen'])}", flush=True)


def as_line(combination: Combination) -> dict[str, object]:
    values = {name: value for name, value in vars(combination).items() if name != "job"}
    return {"name": combination.name, "job": combination.job.name, "step_tokens": combination.job.step_tokens, **values}


def small(job: Job) -> list[str]:
    return [*tiny(compose([f"model={job.model}", "data=demo"]).model.architecture or {}), "data.cutoff=128", "training.max_steps=5"]


def speed(combination: Combination, times: Sequence[float]) -> dict[str, object]:
    """`times`: the clock when each step was logged. With the fused kernels a loss is fetched a step late, and the last one with the one before."""
    known = times[:-1] if combination.kernels == "fused" else times
    seconds = [later - earlier for earlier, later in zip(known[WARM_UP - 1 :], known[WARM_UP:], strict=False)]
    if not seconds:
        return {}
    rate = combination.job.step_tokens / statistics.median(seconds)
    return {"step_seconds": [round(each, 3) for each in seconds], "tokens_per_second": round(rate, 1)}


def by_job(lines: Sequence[dict]) -> list[list[dict]]:
    """The combinations that were measured, of each job, the fastest first."""
    jobs: dict[str, list[dict]] = {}
    for line in sorted((line for line in lines if "tokens_per_second" in line), key=lambda line: -line["tokens_per_second"]):
        jobs.setdefault(line["job"], []).append(line)
    return [jobs[job] for job in dict.fromkeys(line["job"] for line in lines) if job in jobs]


def report(lines: Sequence[dict]) -> str:
    """Of every job its combinations, the fastest first."""
    text = []
    for measured in by_job(lines):
        job, best = measured[0]["job"], measured[0]["tokens_per_second"]
        chosen = next((line for line in measured if line["chosen"]), None)
        ratio = f"{chosen['tokens_per_second'] / best:.3f} of the best" if chosen else "not measured"
        text.append(f"{job}: fit=auto's choice has {ratio} ({len(measured)} combinations)")
        text += [f"  {line['name']:<32} {line['tokens_per_second']:>10.0f} tokens/s{'  chosen' * line['chosen']}" for line in measured]
        text += [f"  {line['name']:<32} failed: {line['exit_code']}" for line in lines if line["job"] == job and "tokens_per_second" not in line]
    return "\n".join(text)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="lines that are there are not measured again")
    parser.add_argument("--report", type=Path)
    parser.add_argument("--bases", type=Path, default=BASES, help="folder that bases.py filled")
    parser.add_argument("--devices", nargs="+", default=["0"])
    parser.add_argument("--only", nargs="*", default=[], help="names of jobs")
    parser.add_argument("--new", action="store_true", help="the jobs with more to choose")
    parser.add_argument("--list", action="store_true", help="the combinations, and nothing is run")
    parser.add_argument("--concurrent", type=int, default=8, help="processes at once; one on each GPU trains")
    parser.add_argument("--seconds", type=float, default=1e6, help="seconds after which no run is started")
    parser.add_argument("--cell-seconds", type=float, default=200, help="seconds after which a run is ended, waiting included")
    parser.add_argument("--work", type=Path, default=Path("/tmp/regimen-fit"))
    parser.add_argument("--tiny", action="store_true")
    arguments = parser.parse_args()
    if arguments.report:
        print(report([json.loads(line) for line in arguments.report.read_text().splitlines()]))
        return 0
    data = write_rows(arguments.work / "data")
    jobs = [job for job in (NEW_JOBS if arguments.new else JOBS) if not arguments.only or job.name in arguments.only]
    every = [combination for job in jobs for combination in combinations(job, data)]
    if arguments.list:
        print("\n".join(f"{each.name:<60} {each.allocated / 2**30:6.1f} GiB {'chosen' * each.chosen}" for each in every))
        return 0
    there = [json.loads(line) for line in arguments.out.read_text().splitlines()] if arguments.out.exists() else []
    done = {line["name"] for line in there if "tokens_per_second" in line}
    room = Room([""] if arguments.tiny else arguments.devices, arguments.concurrent, arguments.concurrent)
    room.close_after(arguments.seconds)
    took, concurrent = (arguments.work, arguments.bases, arguments.out), arguments.concurrent
    bench = Bench(*took, room, concurrent, arguments.cell_seconds, not arguments.tiny, arguments.tiny, surroundings(), threading.Lock())
    began = time.monotonic()
    with ThreadPoolExecutor(concurrent) as pool:
        list(pool.map(bench.measure, [each for each in every if each.name not in done]))
    print(f"{time.monotonic() - began:.0f} s for {len(every)} combinations", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
