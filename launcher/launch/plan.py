"""One run from overrides to a LaunchPlan: everything that will happen, decided and nothing done."""

import os
from dataclasses import asdict, dataclass, replace
from math import ceil
from pathlib import Path
from typing import Any

from conf.environment import FromEnvironment, as_written
from conf.run_dir import RunDir
from conf.run_values import run_as_dict
from conf.schema import Run, Slurm
from conf.secrets import masked_in
from conf.sizes import MIB
from launcher.command import LAUNCHER, Command
from launcher.gate.judge import Judged
from launcher.launch.backends import IN_A_STEP, accelerate_config, command, node_argv
from launcher.launch.batch_script import (
    HEAD,
    NODE_RANK,
    PORT,
    Asked,
    contradicting_variables,
    in_container,
    options_from_environment,
    render,
    sbatch_argv,
)
from launcher.launch.hosts import Share, shares, supervised_command
from launcher.memory.constants import DATALOADER_WORKER, GIB, RANK_HOST_LOADING

HOST_MARGIN = 0.25  # what data and libraries may take that the formulas have not seen; a job that takes more than --mem is killed
BESIDE_RANKS = GIB  # the script's shell, srun, and the launcher's records
EVERY_PROGRAM = ("PATH", "HOME", "USER", "LANG", "LC_ALL", "TMPDIR", "PYTHONPATH")  # with cluster.export; a name that is not set is left out
PLANNED_TIME = "TIME"  # stands for the start's date and time in a plan that is not started


@dataclass(frozen=True)
class LaunchPlan:
    judged: Judged
    run_dir: RunDir
    command: Command
    files: tuple[tuple[Path, str], ...]  # written into the run folder before the command starts
    shares: tuple[Share, ...] = ()  # of cluster=hosts: what starts on each machine

    @property
    def run(self) -> Run:
        return self.judged.run


def plan_for(judged: Judged, run_dir: RunDir) -> LaunchPlan:
    """What `train` does with a judged run in that folder."""
    run = judged.run
    files = ((run_dir.accelerate_config, accelerate_config(run)),) if run.backend.name == "accelerate" else ()
    if run.cluster.name != "slurm":
        on_each = shares(run, run_dir, os.environ, os.getcwd()) if run.cluster.name == "hosts" else ()
        return LaunchPlan(judged, run_dir, supervised_command(run, run_dir), files, on_each)
    on_one_node = command(run, run_dir)
    in_a_step = tuple({**dict(on_one_node.forced), **dict(IN_A_STEP)}.items())
    # set again on the node: Slurm removes CUDA_VISIBLE_DEVICES from the steps of a job that requested no GPU, which would then see every GPU
    forced = ("env", *(f"{name}={value}" for name, value in in_a_step if not isinstance(value, FromEnvironment)))
    ranks_of_node = in_container(run, (*forced, *node_argv(run, run_dir, NODE_RANK, HEAD, PORT)))
    asked = asked_for(judged, on_one_node)
    script = render(run, run_dir, ranks_of_node, LAUNCHER, asked)
    withheld = (*on_one_node.withheld, *contradicting_variables(run, run_dir, asked))
    forced_there = (*in_a_step, *options_from_environment(run))
    submission = replace(on_one_node, argv=sbatch_argv(run_dir.batch_script), withheld=withheld, forced=forced_there)
    return LaunchPlan(judged, run_dir, submission, (*files, (run_dir.batch_script, script)))


def asked_for(judged: Judged, on_one_node: Command) -> Asked:
    """What a job of Slurm asks for by its plan."""
    from launcher.launch.after import awaited_jobs  # a plan of this machine reads no other run

    cluster = judged.run.cluster
    exported = cluster.export if isinstance(cluster, Slurm) else None
    planned = (name for name, _ in (*on_one_node.defaults, *on_one_node.forced, *IN_A_STEP))
    return Asked(
        planned_memory(judged), awaited_jobs(cluster), () if exported is None else tuple(dict.fromkeys([*exported, *EVERY_PROGRAM, *planned]))
    )


def planned_memory(judged: Judged) -> str:
    """--mem in MiB: the upper end of the predicted host memory of a node with a margin, and no more than the node has.

    Before the first step the data are tokenised, by `data.workers` processes beside the waiting ranks; that may take more.
    """
    run, estimate = judged.run, judged.estimate
    cores = run.cluster.cpus_per_rank * run.cluster.ranks_per_node if isinstance(run.cluster, Slurm) else 1
    preparing = run.cluster.ranks_per_node * RANK_HOST_LOADING + (run.data.workers or cores) * DATALOADER_WORKER
    asked = ceil(max(estimate.ranges.host.high(estimate.host), preparing) * (1 + HOST_MARGIN)) + BESIDE_RANKS
    there = run.node.host_memory
    return f"{ceil((asked if there is None else min(asked, there)) / MIB)}M"


def new_run_dir(run: Run, time: str) -> RunDir:
    return RunDir(Path(run.output).absolute() / run.name / time)


def plan_as_dict(plan: LaunchPlan, site: dict[str, str]) -> dict[str, Any]:
    """The plan for programs: what `--json` prints and plan.json holds. Sizes are bytes, times seconds."""
    judged = plan.judged
    values = {
        "run_folder": str(plan.run_dir.path),
        "run": run_as_dict(judged.run),
        "parameters": judged.facts.parameters,
        "memory": judged.estimate.as_dict(),
        "verdict": judged.verdict.as_dict(),
        "expected": judged.expectations.as_dict(),
        "fit": list(judged.fit),
        "argv": list(plan.command.argv),
        "environment": as_written(plan.command.changes(site)),
        "files": {str(path): text for path, text in plan.files},
    }
    values |= {"machines": [asdict(share) for share in plan.shares]} if plan.shares else {}
    return {key: masked_in(value) for key, value in values.items()}
