"""Jobs of the real batch script with stand-ins for the ranks (stand_in.py)."""

import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from conf import journal
from conf.run_dir import RunDir, save_run
from launcher.command import LAUNCHER
from launcher.launch.batch_script import HEAD, NODE_RANK, NOTHING, PORT, Asked, parse_job_id, render, sbatch_argv
from tests.described import described
from tests.waiting import wait_until

if TYPE_CHECKING:
    from tests.slurm.cluster import Cluster

STAND_IN = Path(__file__).parent / "stand_in.py"


@dataclass(frozen=True)
class Job:
    cluster: "Cluster"
    run_dir: RunDir
    number: str
    nodes: int

    @property
    def events(self) -> list[dict[str, Any]]:
        """Without the submission, which comes first."""
        return journal.events(self.run_dir)[1:]

    @property
    def names(self) -> list[str]:
        return [event["event"] for event in self.events]

    def said(self, node: int) -> dict[str, Any]:
        """What the agent of a node found around it."""
        found: dict[str, Any] = json.loads((self.run_dir.path / f"node-{node}.json").read_text())
        return found

    def train(self) -> None:
        wait_until(lambda: len(list(self.run_dir.path.glob("trains-*"))) == self.nodes, f"job {self.number} that trains on {self.nodes} nodes")

    def end(self) -> dict[str, str]:
        return self.cluster.wait_for(self.number, "COMPLETED", "FAILED", "CANCELLED")


def submit(
    cluster: "Cluster", folder: Path, behaviour: str, nodes: int = 2, partition: str = "main", asked: Asked = NOTHING, **values: object
) -> Job:
    """`values`: of cluster=slurm."""
    run_dir = RunDir(folder)
    run_dir.logs.mkdir(parents=True)
    run = described("model=demo", "data=demo", "cluster=slurm", "node=cpu", "name=demo")
    run = replace(run, cluster=replace(run.cluster, nodes=nodes, ranks_per_node=1, partition=partition, **values))
    save_run(run, run_dir)
    placed = (f"--node-rank={NODE_RANK}", f"--master-addr={HEAD}", f"--master-port={PORT}")
    run_dir.batch_script.write_text(render(run, run_dir, (sys.executable, str(STAND_IN), behaviour, *placed, str(run_dir.path)), LAUNCHER, asked))
    number = parse_job_id(cluster.ask(*sbatch_argv(run_dir.batch_script)))
    journal.record(run_dir, journal.Submitted(number))
    return Job(cluster, run_dir, number, nodes)


def preempt(cluster: "Cluster") -> None:
    """By an urgent job that needs both nodes, and ends at once."""
    size = ("--nodes=2", "--ntasks-per-node=1", "--cpus-per-task=8")
    cluster.wait_for(cluster.ask("sbatch", "--parsable", "--partition=urgent", *size, "--output=/dev/null", "--wrap=true").strip(), "COMPLETED")
