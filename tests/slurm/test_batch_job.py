"""The batch script as a job of a real Slurm, with stand-ins for the ranks: where its tasks run, which exit code comes back."""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from conf.run_dir import RunDir
from launcher.command import LAUNCHER
from launcher.launch.batch_script import HEAD, NODE_RANK, PORT, parse_job_id, render, sbatch_argv
from tests.described import described

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
        run = described("model=demo", "data=demo", "cluster=slurm", "node=cpu", "name=demo")
        run = replace(run, cluster=replace(run.cluster, nodes=2, ranks_per_node=1))
        placed = (f"--node-rank={NODE_RANK}", f"--master-addr={HEAD}", f"--master-port={PORT}")
        run_dir.batch_script.write_text(render(run, run_dir, (sys.executable, str(STAND_IN), behaviour, *placed, str(run_dir.path)), LAUNCHER))
        return parse_job_id(cluster.ask(*sbatch_argv(run_dir.batch_script)))

    return submit


def said(run_dir: RunDir, node: int) -> dict[str, object]:
    return json.loads((run_dir.path / f"node-{node}.json").read_text())


def test_each_node_starts_its_own_agent_and_all_name_the_same_head(cluster: "Cluster", submit: Submit, run_dir: RunDir) -> None:
    job_id = submit("finish")
    job = cluster.wait_for(job_id, "COMPLETED", "FAILED")
    assert (job["JobState"], job["ExitCode"]) == ("COMPLETED", "0:0")
    assert [said(run_dir, node)["host"] for node in (0, 1)] == ["n1", "n2"]
    assert {said(run_dir, node)["head"] for node in (0, 1)} == {"n1"}
    assert {said(run_dir, node)["port"] for node in (0, 1)} == {str(20000 + int(job_id) % 10000)}


def test_one_failing_agent_ends_the_others_and_the_job_fails(cluster: "Cluster", submit: Submit, run_dir: RunDir) -> None:
    job = cluster.wait_for(submit("fail"), "COMPLETED", "FAILED")
    # srun returns the highest code of its tasks: 143 of the one that it ended; the job ends with what the failed rank left
    assert (job["JobState"], job["ExitCode"], job["Restarts"]) == ("FAILED", "80:0", "0")
    assert not (run_dir.exits / "rank-0.json").exists()
