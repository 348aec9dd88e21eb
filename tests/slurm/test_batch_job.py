"""The batch script as a job of a real Slurm, with stand-ins for the ranks: where its tasks run, which exit code comes back."""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.slurm.jobs import submit

if TYPE_CHECKING:
    from tests.slurm.cluster import Cluster

pytestmark = pytest.mark.slurm


def test_each_node_starts_its_own_agent_and_all_name_the_same_head(cluster: "Cluster", tmp_path: Path) -> None:
    job = submit(cluster, tmp_path, "finish")
    ended = job.end()
    assert (ended["JobState"], ended["ExitCode"]) == ("COMPLETED", "0:0")
    assert [job.said(node)["host"] for node in (0, 1)] == ["n1", "n2"]
    assert {job.said(node)["head"] for node in (0, 1)} == {"n1"}
    assert {job.said(node)["port"] for node in (0, 1)} == {str(20000 + int(job.number) % 10000)}


def test_one_failing_agent_ends_the_others_and_the_job_fails(cluster: "Cluster", tmp_path: Path) -> None:
    job = submit(cluster, tmp_path, "fail")
    ended = job.end()
    assert (ended["JobState"], ended["ExitCode"], ended["Restarts"]) == ("FAILED", "80:0", "0")
    assert job.names == ["start", "end"]
    assert not job.run_dir.stop.exists()
