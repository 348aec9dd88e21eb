"""The ways in which a user of a real Slurm may start a run without sbatch through regimen."""

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from conf.committed import committed, step_of
from conf.run_dir import RunDir
from launcher.launch.lock import read_owner
from tests.slurm.test_train import RUN
from tests.waiting import PATIENCE, wait_until

if TYPE_CHECKING:
    from tests.slurm.cluster import Cluster

pytestmark = pytest.mark.slurm

LOCAL = tuple(word for word in RUN if not word.startswith("cluster"))
SIZE = ("--nodes=2", "--ntasks-per-node=1", "--cpus-per-task=2")
TORCHRUN = (
    f"{sys.executable} -m torch.distributed.run --nnodes=2 --nproc-per-node=2 --rdzv-backend=c10d --rdzv-id=$SLURM_JOB_ID --rdzv-endpoint=n1:29517"
)


def started(cluster: "Cluster", *argv: str) -> "subprocess.CompletedProcess[str]":
    environment = {name: value for name, value in cluster.environment.items() if name != "PYTEST_CURRENT_TEST"}
    return subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=PATIENCE, stdin=subprocess.DEVNULL, check=False)


def test_srun_with_a_task_for_each_rank_is_refused_once(cluster: "Cluster", tmp_path: Path) -> None:
    done = started(
        cluster, "srun", "--nodes=2", "--ntasks-per-node=2", sys.executable, "-m", "launcher", "train", *LOCAL, f"output={tmp_path / 'outputs'}"
    )
    assert done.returncode == 2
    assert done.stderr.count("regimen: srun has started 4 tasks of this command (SLURM_STEP_NUM_TASKS=4)") == 1
    assert done.stderr.count("regimen:") == 1
    assert not (tmp_path / "outputs").exists()


@pytest.mark.long
@pytest.mark.parametrize(
    ("allocated", "world"),
    [
        (("srun", *SIZE, "bash", "-c", f'{TORCHRUN} -m launcher train "$@"', "bash"), 4),
        (("salloc", *SIZE, "srun", *SIZE, "bash", "-c", f'{TORCHRUN} -m launcher train "$@"', "bash"), 4),
        (("salloc", *SIZE, sys.executable, "-m", "launcher", "train", "cluster.ranks_per_node=2"), 2),
        (("srun", "--ntasks=1", "--cpus-per-task=2", sys.executable, "-m", "launcher", "train", "cluster.ranks_per_node=2"), 2),
        (("srun", "--ntasks=1", "--cpus-per-task=2", sys.executable, "-m", "accelerate.commands.launch",
          "--multi_gpu", "--num_processes=2", "--num_machines=1", "--mixed_precision=no", "--dynamo_backend=no", "-m", "launcher", "train"), 2),
    ],
    ids=["torchrun on each node", "the same in salloc", "in salloc", "one task", "accelerate launch"],
)  # fmt: skip
def test_one_run_comes_of_every_door(allocated: tuple[str, ...], world: int, cluster: "Cluster", tmp_path: Path) -> None:
    done = started(cluster, *allocated, *LOCAL, f"output={tmp_path / 'outputs'}")
    assert done.returncode == 0, done.stderr
    [path] = (tmp_path / "outputs").glob("demo/*")
    layouts = [json.loads(layout.read_text()) for layout in RunDir(path).layouts.glob("rank-*.json")]
    assert [layout["world"] for layout in layouts] == [world] * world
    assert (RunDir(path).model / "adapter_model.safetensors").is_file()


@pytest.mark.long
def test_a_run_goes_on_on_another_host_only_when_its_owner_is_dead(cluster: "Cluster", tmp_path: Path) -> None:
    """A run of one machine inside a job: the other node of the cluster is refused while it lives, and goes on once its owner was killed."""
    output = tmp_path / "outputs"
    first = ("srun", "--nodelist=n1", "--ntasks=1", "--cpus-per-task=2", sys.executable, "-m", "launcher", "train", *LOCAL, f"output={output}")
    environment = {name: value for name, value in cluster.environment.items() if name != "PYTEST_CURRENT_TEST"}
    with subprocess.Popen((*first, "training.max_steps=100000", "checkpoint.interval=5"), env=environment, stdout=subprocess.DEVNULL) as running:
        run_dir = RunDir(wait_until(lambda: next(iter(output.glob("demo/*")), None), "run folder", running))  # type: ignore[arg-type]
        wait_until(lambda: len(committed(run_dir)) > 0, "checkpoint", running)
        resume = ("srun", "--nodelist=n2", "--ntasks=1", "--cpus-per-task=2", sys.executable, "-m", "launcher", "train", f"resume={run_dir.path}")
        refused = started(cluster, *resume)
        assert (refused.returncode, refused.stderr.count("is in use by process")) == (73, 1), refused.stderr
        owner = read_owner(run_dir)
        assert owner is not None
        assert (owner.host, bool(owner.slurm_job)) == ("n1", True)
        cluster.ask("scancel", "--signal=KILL", owner.slurm_job)
        running.wait(PATIENCE)
    shorter = f"training.max_steps={step_of(committed(run_dir)[0]) + 5}"
    done = started(cluster, *resume, shorter)
    assert done.returncode == 0, done.stderr
    assert (run_dir.model / "adapter_model.safetensors").is_file()
