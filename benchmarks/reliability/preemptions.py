"""F3: preemptions of a real run on a real Slurm. Does the job that is queued again end with the bits of one that nobody disturbed?

    PYTHONPATH=. python benchmarks/reliability/preemptions.py --trials 10 --out RESULTS.jsonl        as root, with Slurm's daemons

A trial submits the run with `regimen train cluster=slurm` to two nodes of a throw-away cluster (tests/slurm/lab.py), or to one with both ranks, to a
partition with a grace time of 60 s or one without, where KillWait of 30 s is all there is. At a step drawn by the seed an urgent job takes the nodes;
Slurm alone queues the run again. Compared with the undisturbed run: losses and norms of gradients of each step, the rows that each step was made of,
and the hash of each file of the final model. Lost work: the last step that was made before the job was queued again, less the step that was saved;
at most one. Nobody does anything by hand. The broken variant goes on with the random numbers of another place.
"""

import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks.reliability.kills_in_training import BROKEN, DROPPED, left_by, step_of
from benchmarks.reliability.trials import arguments, run
from conf import journal
from conf.run_dir import RunDir
from tests.slurm.cluster import Cluster, missing, running_cluster

STEPS = 60
RUN = (
    *("model=demo", "data=demo", "data.max_samples=64", "model.architecture.hidden_size=64", "model.architecture.intermediate_size=128"),
    *("cluster=slurm", "node=cpu", "sharding=ddp", "name=demo", "training.micro_batch=4", "training.precision=fp32", "evaluation.interval=0"),
    *("evaluation.answers=0", "data.validation_share=0", f"training.max_steps={STEPS}", *DROPPED),
)
URGENT = ("sbatch", "--parsable", "--partition=urgent", "--nodes=2", "--ntasks-per-node=1", "--cpus-per-task=8", "--output=/dev/null", "--wrap=true")
PATIENCE = 1200.0  # seconds for what takes one minute on an idle machine


@dataclass(frozen=True)
class Job:
    number: str
    run_dir: RunDir


def wait_until(holds: Callable[[], Any], what: str) -> None:
    end = time.monotonic() + PATIENCE
    while not holds():
        if time.monotonic() > end:
            raise RuntimeError(f"within {PATIENCE:.0f} s there was no {what}")
        time.sleep(0.05)


def submit(cluster: Cluster, output: Path, nodes: int, partition: str, broken: bool) -> Job:
    output.mkdir()
    environment = dict(cluster.environment)
    if broken:  # every Python process that finds it on its path imports it; only ranks are changed
        (output / "sitecustomize.py").write_text(BROKEN)
        environment["PYTHONPATH"] = os.pathsep.join([str(output), *filter(None, [os.environ.get("PYTHONPATH")])])
    size = (f"cluster.nodes={nodes}", f"cluster.ranks_per_node={2 // nodes}", f"cluster.partition={partition}", f"output={output}")
    done = subprocess.run((sys.executable, "-m", "launcher", "train", *RUN, *size), env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"the submission ended with {done.returncode}: {done.stderr}")
    words = done.stdout.splitlines()[-1].split()
    return Job(words[4].rstrip("."), RunDir(Path(words[-1])))


def ended(cluster: Cluster, job: Job) -> dict[str, str]:
    return cluster.wait_for(job.number, "COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL")


def names(run_dir: RunDir) -> list[str]:
    return [event["event"] for event in journal.events(run_dir)]


def trial(number: int, seed: int, cluster: Cluster, broken: bool, root: Path, reference: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    chance = random.Random(f"{seed} {number}")
    nodes, partition, moment = number % 2 + 1, ("grace", "preempted")[number // 2 % 2], chance.randrange(1, STEPS * 2 // 3)
    expected = reference()
    job = submit(cluster, root / f"trial-{number}", nodes, partition, broken)
    wait_until(lambda: step_of(job.run_dir) >= moment or "end" in names(job.run_dir), f"step {moment}")
    urgent = cluster.ask(*URGENT).strip()
    wait_until(lambda: {"requeued", "end"} & {*names(job.run_dir)}, "end of the first start")
    made = step_of(job.run_dir)
    saved = max((event["step"] for event in journal.events(job.run_dir) if event["event"] == "commit"), default=0)
    cluster.wait_for(urgent, "COMPLETED")
    end = ended(cluster, job)
    differs = [name for name, value in left_by(job.run_dir).items() if value != expected[name]]
    landed = names(job.run_dir).count("requeued") == 1
    held = end["JobState"] == "COMPLETED" and not differs and made - saved <= 1
    found = {"nodes": nodes, "partition": partition, "step": moment, "made": made, "saved": saved, "starts": names(job.run_dir).count("start")}
    why = f"{nodes} nodes, {partition}, step {moment}: {end['JobState']}, other {', '.join(differs) or 'nothing'}, saved {saved} of {made}"
    return {**found, "landed": landed, "held": held, "why": why}


def main() -> int:
    options = arguments(__doc__ or "").parse_args()
    why = missing()
    if why:
        print(why, file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="regimen-preemptions-", ignore_cleanup_errors=True) as made:
        root = Path(made)
        (root / "lab").mkdir()
        with running_cluster(root / "lab") as cluster:

            @cache
            def reference() -> dict[str, Any]:
                """Of one job that nobody disturbs. On how many nodes two ranks are changes no bit."""
                job = submit(cluster, root / "undisturbed", 2, "main", broken=False)
                if ended(cluster, job)["JobState"] != "COMPLETED":
                    raise RuntimeError(f"the undisturbed run failed; its logs are in {job.run_dir.logs}")
                return left_by(job.run_dir)

            return run(options, "preemptions", lambda number, seed: trial(number, seed, cluster, options.broken, root, reference))


if __name__ == "__main__":
    sys.exit(main())
