"""The batch script as a job of a real Slurm: where its tasks run, what a warning does, which exit code comes back."""

import json
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from conf.run_dir import RunDir
from launcher.backends import LAUNCHER
from launcher.batch_script import HEAD, NODE_RANK, PORT, parse_job_id, render, sbatch_argv
from launcher.compose import compose

if TYPE_CHECKING:
    from tests.slurm.conftest import Cluster

pytestmark = pytest.mark.slurm

STAND_IN = Path(__file__).parent / "stand_in.py"
Submit = Callable[[str], str]


@pytest.fixture
def run_dir(tmp_path: Path) -> RunDir:
    run_dir = RunDir(tmp_path)
    run_dir.logs.mkdir()
    return run_dir


@pytest.fixture
def submit(cluster: "Cluster", run_dir: RunDir) -> Submit:
    """Submits a job whose agents behave as named; the job id."""

    def submit(behaviour: str) -> str:
        run = compose(["model=demo", "data=demo", "cluster=slurm", "node=cpu", "name=demo"])
        run = replace(run, cluster=replace(run.cluster, nodes=2, ranks_per_node=1))
        placed = (f"--node-rank={NODE_RANK}", f"--master-addr={HEAD}", f"--master-port={PORT}")
        run_dir.batch_script.write_text(render(run, run_dir, (sys.executable, str(STAND_IN), behaviour, *placed, str(run_dir.path)), LAUNCHER))
        return parse_job_id(cluster.ask(*sbatch_argv(run_dir.batch_script)))

    return submit


def said(run_dir: RunDir, node: int, restarts: int) -> dict[str, object]:
    return json.loads((run_dir.path / f"node-{node}-{restarts}.json").read_text())


def wait_for_start(run_dir: RunDir) -> None:
    end = time.monotonic() + 30
    while len(list(run_dir.path.glob("node-?-0.json"))) < 2:
        assert time.monotonic() < end, "the agents did not start"
        time.sleep(0.05)


def test_each_node_starts_its_own_agent_and_all_name_the_same_head(cluster: "Cluster", submit: Submit, run_dir: RunDir) -> None:
    job_id = submit("finish")
    job = cluster.wait_for(job_id, "COMPLETED", "FAILED")
    assert (job["JobState"], job["ExitCode"]) == ("COMPLETED", "0:0")
    assert [said(run_dir, node, 0)["host"] for node in (0, 1)] == ["n1", "n2"]
    assert {said(run_dir, node, 0)["head"] for node in (0, 1)} == {"n1"}
    assert {said(run_dir, node, 0)["port"] for node in (0, 1)} == {str(20000 + int(job_id) % 10000)}


def test_a_warning_saves_and_the_job_is_queued_again_and_finishes(cluster: "Cluster", submit: Submit, run_dir: RunDir) -> None:
    job_id = submit("save")
    wait_for_start(run_dir)
    cluster.ask("scancel", "--batch", "--signal=USR1", job_id)  # what --signal=B:USR1@seconds does before the time limit
    job = cluster.wait_for(job_id, "COMPLETED", "FAILED")
    assert (job["JobState"], job["ExitCode"], job["Restarts"]) == ("COMPLETED", "0:0", "1")
    assert not run_dir.stop.exists()
    log = (run_dir.logs / f"slurm-{job_id}.txt").read_text()
    assert all(f"agent {node} start {start}" in log for node in (0, 1) for start in (0, 1))


def test_a_stop_asked_for_by_the_user_ends_the_job_with_75(cluster: "Cluster", submit: Submit, run_dir: RunDir) -> None:
    job_id = submit("save")
    wait_for_start(run_dir)
    run_dir.stop.touch()
    job = cluster.wait_for(job_id, "COMPLETED", "FAILED")
    assert (job["JobState"], job["ExitCode"], job["Restarts"]) == ("FAILED", "75:0", "0")


def test_one_failing_agent_ends_the_others_and_the_job_fails(cluster: "Cluster", submit: Submit, run_dir: RunDir) -> None:
    job = cluster.wait_for(submit("fail"), "COMPLETED", "FAILED")
    # srun returns the highest code of its tasks: 143 of the one that it ended; the job ends with what the failed rank left
    assert (job["JobState"], job["ExitCode"], job["Restarts"]) == ("FAILED", "80:0", "0")
    assert not (run_dir.exits / "rank-0.json").exists()
