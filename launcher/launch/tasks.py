"""Tasks of srun or MPI, each of which would start a whole run: they are refused before anything is composed."""

from collections.abc import Mapping
from dataclasses import dataclass

from launcher.errors import ConfigError
from launcher.launch.torchrun_door import is_count, raise_refusal, started_by_torchrun


@dataclass(frozen=True)
class Starter:
    command: str
    tasks: str  # the variable with the number of tasks, set in every one of them; srun's is not set in a batch script or in salloc's shell
    number: str  # of this task, from 0
    one_per_node: str  # its option for one task on each node


# srun(1); mpirun(1) of Open MPI; mpiexec of MPICH and Intel MPI (their Hydra process manager)
STARTERS = (
    Starter("srun", "SLURM_STEP_NUM_TASKS", "SLURM_PROCID", "srun --ntasks-per-node=1"),
    Starter("mpirun", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK", "mpirun --map-by ppr:1:node"),
    Starter("mpiexec", "PMI_SIZE", "PMI_RANK", "mpiexec -ppn 1"),
)


def refuse_tasks(environment: Mapping[str, str]) -> None:
    """Of several tasks, the first says why.

    Raises:
        ConfigError: in the first task.
        RefusedByRankZero: in the others.
    """
    found = next((starter for starter in STARTERS if task_count(environment, starter) > 1), None)
    if found is None or started_by_torchrun(environment) is not None:
        return
    if environment.get(found.number, "0") != "0":
        raise_refusal(ConfigError.exit_code)
    tasks = task_count(environment, found)
    raise ConfigError(
        f"{found.command} has started {tasks} tasks of this command ({found.tasks}={tasks}), and each of them would train a whole run. "
        f"Submit the run with cluster=slurm, or start torchrun once on each node: {found.one_per_node} torchrun --nnodes=NODES "
        "--nproc-per-node=RANKS --rdzv-backend=c10d --rdzv-id=JOB --rdzv-endpoint=FIRST_NODE:29500 -m launcher train ... "
        f"For one run on one node, start one task. Where {found.tasks} is left over from another job, remove it: unset {found.tasks}."
    )


def task_count(environment: Mapping[str, str], starter: Starter) -> int:
    """1 where the variable is absent, or is not what the starter sets."""
    text = environment.get(starter.tasks, "")
    return int(text) if is_count(text, 1) else 1
