"""What a real Slurm knows of its nodes, and what a job asks of it: node=auto, --mem, exported variables, setup lines, --wait."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from conf.run_dir import RunDir
from launcher.launch.batch_script import Asked
from tests.slurm.jobs import submit
from tests.slurm.test_train import RUN, CommandLine

if TYPE_CHECKING:
    from tests.slurm.cluster import Cluster

pytestmark = pytest.mark.slurm

ON_GPUS = tuple(
    word for word in RUN if not word.startswith(("node=", "cluster.ranks_per_node", "cluster.partition", "sharding", "training.precision"))
)


def test_the_node_of_a_job_is_read_from_its_partition(cluster: "Cluster", tmp_path: Path) -> None:
    """The login node has no GPU; each node of the lab has two H200, 8 CPUs and 64000 MiB."""
    regimen = CommandLine(cluster, tmp_path)
    planned = json.loads(regimen.call("plan", "--json", *ON_GPUS, "node=auto", f"output={tmp_path}").stdout)
    assert {key: planned["run"]["node"][key] for key in ("gpus", "gpu_memory", "host_memory", "tflops")} == {
        "gpus": 2, "gpu_memory": 150754820096, "host_memory": 64000 * 1024**2, "tflops": 989,
    }  # fmt: skip
    [script] = planned["files"].values()
    assert "#SBATCH --gpus-per-node=2\n" in script
    refused = regimen.call("plan", *ON_GPUS, "node=auto", "cluster.ranks_per_node=3", f"output={tmp_path}")
    assert refused.returncode == 2
    assert "0 nodes of main have what the job asks for, and cluster.nodes=2. Its nodes: 2 GPUs of type h200, 8 CPUs" in refused.stderr


def test_a_job_gets_the_planned_memory_and_the_named_variables_alone(cluster: "Cluster", tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(cluster.environment, "KEPT", "1")
    monkeypatch.setitem(cluster.environment, "OTHER", "1")
    job = submit(
        cluster,
        tmp_path,
        "finish",
        asked=Asked("700M", (), ("KEPT", "ABSENT", "PATH", "HOME", "PYTHONPATH")),
        comment="of/the_lab",
        directives=["nice=5"],
    )
    ended = job.end()
    assert (ended["JobState"], ended["MinMemoryNode"], ended["Comment"], ended["Nice"]) == ("COMPLETED", "700M", "of/the_lab", "5")
    for node in (0, 1):
        assert {"KEPT", "PATH", "SLURM_NODEID"} <= set(job.said(node)["variables"])
        assert not {"OTHER", "ABSENT"} & set(job.said(node)["variables"])


def test_a_setup_line_that_fails_ends_the_run_with_its_cause(cluster: "Cluster", tmp_path: Path) -> None:
    """No shell here has a function `module`. `train --wait` ends as the run does."""
    regimen = CommandLine(cluster, tmp_path)
    done = regimen.call("train", "--wait", *RUN, f"output={tmp_path}", "cluster.setup=[module load nothing]")
    assert done.returncode == 2, done.stderr
    assert "submitted as Slurm job" in done.stdout
    assert "A line of cluster.setup failed with exit code 127." in done.stderr
    [path] = tmp_path.glob("demo/*")
    told = regimen.status(RunDir(path))
    assert (told["state"], told["exit_code"]) == ("failed", 2)


def test_a_job_that_waits_for_one_that_fails_is_cancelled(cluster: "Cluster", tmp_path: Path) -> None:
    first = submit(cluster, tmp_path / "first", "fail")
    second = submit(cluster, tmp_path / "second", "finish", asked=Asked(after=(first.number,)))
    assert cluster.job(second.number)["Dependency"].startswith(f"afterok:{first.number}")
    assert first.end()["JobState"] == "FAILED"
    assert second.end()["JobState"] == "CANCELLED"
    assert second.names == []


CHAINED = (
    *("data=demo", "data.max_samples=64", "cluster=slurm", "cluster.ranks_per_node=1", "cluster.partition=main", "node=cpu", "regime=full"),
    *("training.precision=fp32", "training.max_steps=4"),
)


def chained(regimen: CommandLine, *words: str) -> tuple[str, RunDir]:
    done = regimen.call("train", *CHAINED, f"output={regimen.output}", *words)
    assert done.returncode == 0, done.stderr
    line = done.stdout.splitlines()[-1]
    return line.split()[4].rstrip("."), RunDir(Path(line.rpartition(" ")[2]))


@pytest.mark.long
def test_a_chain_of_three_runs_trains_on_what_each_left(cluster: "Cluster", tmp_path: Path) -> None:
    """sft, rm and ppo are submitted before any of them has begun."""
    regimen = CommandLine(cluster, tmp_path)
    cluster.ask("scontrol", "update", "nodename=n[1-2]", "state=drain", "reason=test")
    first, sft = chained(regimen, "name=sft", "model=demo")
    on_sft = ("model=local", f"model.path={sft.model}")
    second, rm = chained(regimen, "name=rm", "stage=rm", *on_sft, "cluster.after=sft")
    third, ppo = chained(regimen, "name=ppo", "stage=ppo", *on_sft, f"stage.reward_model={rm.path}", "stage.response_length=8", "cluster.after=rm")
    cluster.ask("scontrol", "update", "nodename=n[1-2]", "state=resume")
    for job in (first, second, third):
        assert cluster.wait_for(job, "COMPLETED", "FAILED", "CANCELLED")["JobState"] == "COMPLETED"
    assert [regimen.status(run)["state"] for run in (sft, rm, ppo)] == ["finished"] * 3
