"""Whatever ends a job of a real Slurm, with stand-ins for the ranks: what was asked to save is saved, and what may be queued again is, once.

Each cell is one job of the batch script. They are signalled together, since a job that is queued again waits some seconds.
"""

import os
import re
import signal
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from launcher.launch.batch_script import STOPPED_BY_SLURM, TERMINATED, TIME_LIMIT
from launcher.launch.status import status_of
from tests.slurm.jobs import Job, preempt, submit
from tests.waiting import wait_until

if TYPE_CHECKING:
    from tests.slurm.cluster import Cluster

pytestmark = pytest.mark.slurm

# what is done to a running job: {} is its number
ACTS = {
    "warning": ("scancel", "--batch", "--signal=USR1", "{}"),  # what --signal=B:USR1@seconds does
    "signalled step": ("scancel", "--signal=TERM", "{}"),
    "requeue": ("scontrol", "requeue", "{}"),
    "cancel": ("scancel", "{}"),
    "killed step": ("scancel", "--signal=KILL", "{}.0"),
    "killed agent": ("kill", "-KILL", "{}"),
    "stop of the user": ("touch", "{}"),
}
SAVED_AND_AGAIN = ["start", "commit", "stop requested", "requeued", "start", "end"]
EVENTS = {
    **dict.fromkeys(("warning", "signalled step", "requeue"), SAVED_AND_AGAIN),
    "cancel": ["start", "commit", "stop requested", "end"],
    **{act: ["start", "failure", "requeued", "start", "end"] for act in ("killed step", "killed agent")},
    "stop of the user": ["start", "commit", "end"],
}


@pytest.fixture(scope="module")
def signalled(cluster: "Cluster", tmp_path_factory: pytest.TempPathFactory) -> dict[str, Job]:
    folder = tmp_path_factory.mktemp("signalled")
    jobs = {act: submit(cluster, folder / act.replace(" ", "-"), "train:0.5") for act in ACTS}
    for job in jobs.values():
        job.train()
    for act, job in jobs.items():
        meant = {"killed agent": str(agent(job)), "stop of the user": str(job.run_dir.stop)}.get(act, job.number)
        cluster.ask(*(word.format(meant) for word in ACTS[act]))
    for job in jobs.values():
        job.end()
    return jobs


def agent(job: Job) -> int:
    """The pid, outside of the cluster's namespace, of the agent of node 1."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if b"--node-rank=1" in words and str(job.run_dir.path).encode() in words:
            return int(process.name)
    raise AssertionError(f"job {job.number} has no agent on node 1")


@pytest.mark.parametrize("act", ACTS)
def test_what_happens_to_a_job_is_saved_where_it_can_be_and_journalled(act: str, signalled: dict[str, Job]) -> None:
    job = signalled[act]
    assert job.names == EVENTS[act]
    assert not job.run_dir.stop.exists() or act == "stop of the user"


@pytest.mark.parametrize("act", ACTS)
def test_only_what_a_person_ended_is_not_queued_again(act: str, signalled: dict[str, Job], cluster: "Cluster") -> None:
    job = signalled[act]
    ended = cluster.job(job.number)
    by_a_person = {"cancel": ("CANCELLED", "0"), "stop of the user": ("FAILED", "0")}
    assert (ended["JobState"], ended["Restarts"]) == by_a_person.get(act, ("COMPLETED", "1"))
    assert (status_of(job.run_dir).state, status_of(job.run_dir).exit_code) == (("stopped", 75) if act in by_a_person else ("finished", 0))
    assert [event["by"] for event in job.events if event["event"] == "start"] == ["the user", "Slurm"][: 1 if act in by_a_person else 2]


def test_the_journal_says_who_asked(signalled: dict[str, Job]) -> None:
    asked = {act: [event["by"] for event in job.events if event["event"] == "stop requested"] for act, job in signalled.items()}
    by_slurm = {act: [STOPPED_BY_SLURM[TERMINATED]] for act in ("signalled step", "requeue", "cancel")}
    assert asked == {act: [] for act in ACTS} | by_slurm | {"warning": [STOPPED_BY_SLURM[TIME_LIMIT]]}
    assert "Slurm ended job" in status_of(signalled["cancel"].run_dir).message


def test_agents_begin_with_sigterm_ignored(signalled: dict[str, Job]) -> None:
    assert all(job.said(node)["ignores_sigterm"] for job in signalled.values() for node in (0, 1))


@pytest.fixture(scope="module")
def preempted(cluster: "Cluster", tmp_path_factory: pytest.TempPathFactory) -> dict[str, Job]:
    """By one urgent job that needs both nodes; a save of 3 s is far less than the grace time."""
    folder = tmp_path_factory.mktemp("preempted")
    jobs = {
        f"{partition} {nodes}": submit(cluster, folder / f"{partition}-{nodes}", "train:3", nodes, partition)
        for partition in ("grace", "preempted")
        for nodes in (1, 2)
    }
    for job in jobs.values():
        job.train()
    preempt(cluster)
    for job in jobs.values():
        job.end()
    return jobs


@pytest.mark.parametrize("nodes", [1, 2])
@pytest.mark.parametrize("partition", ["grace", "preempted"])
def test_a_preempted_job_saves_and_goes_on(partition: str, nodes: int, preempted: dict[str, Job], cluster: "Cluster") -> None:
    """With a grace time Slurm signals the steps alone, and without one the batch shell too, which has KillWait then."""
    job = preempted[f"{partition} {nodes}"]
    assert job.names == SAVED_AND_AGAIN
    ended = cluster.job(job.number)
    assert (ended["JobState"], ended["ExitCode"], ended["Restarts"]) == ("COMPLETED", "0:0", "1")
    assert not job.run_dir.stop.exists()


def test_a_job_whose_node_failed_goes_on(cluster: "Cluster", tmp_path: Path) -> None:
    """Slurm queues it again. The node that was set down registers again by itself."""
    job = submit(cluster, tmp_path / "run", "train:0.1")
    job.train()
    cluster.ask("scontrol", "update", "nodename=n2", "state=down", "reason=test")
    ended = job.end()
    assert (ended["JobState"], ended["Restarts"]) == ("COMPLETED", "1")
    assert job.names[0] == "start"
    assert job.names[-2:] == ["start", "end"]
    wait_until(
        lambda: set(re.findall(r"n\d", cluster.ask("sinfo", "--noheader", "--Node", "--states=idle", "--format=%N"))) == {"n1", "n2"}, "idle nodes"
    )


def kill_node(cluster: "Cluster", name: str) -> None:
    """As a power failure does: its slurmd and all that it has started, alone in a UTS namespace. Another cluster may have such a node too."""
    slurmd_words = ["-f", cluster.environment["SLURM_CONF"], "-N", name]
    names = {path: words_of(path) for path in Path("/proc").glob("[0-9]*")}
    [slurmd] = [path for path, words in names.items() if words[:1] == ["slurmd"] and words[-4:] == slurmd_words]
    place = os.readlink(slurmd / "ns/uts")
    for path in names:
        with suppress(OSError):  # it has ended, or may not be looked at
            if os.readlink(path / "ns/uts") == place:
                os.kill(int(path.name), signal.SIGKILL)


def words_of(process: Path) -> list[str]:
    try:
        return (process / "cmdline").read_text().split("\0")[:-1]
    except (FileNotFoundError, ProcessLookupError):
        return []


def state_of_node(cluster: "Cluster", name: str) -> str:
    return cluster.ask("sinfo", "--noheader", "--Node", "--partition=main", f"--nodes={name}", "--format=%T").strip()


@pytest.mark.long
def test_a_job_of_two_nodes_goes_on_when_one_of_them_dies(cluster: "Cluster", tmp_path: Path) -> None:
    job = submit(cluster, tmp_path / "run", "train:0.1")
    job.train()
    kill_node(cluster, "n2")
    wait_until(lambda: state_of_node(cluster, "n2").startswith("down"), "node that is down")
    (Path(cluster.environment["SLURM_CONF"]).parent / "again").touch()
    wait_until(lambda: state_of_node(cluster, "n2") in ("idle", "allocated"), "node that is up again")
    ended = job.end()
    assert ended["JobState"] == "COMPLETED"
    assert int(ended["Restarts"]) >= 1
    assert job.names[0] == "start"
    assert job.names[-2:] == ["start", "end"]
    assert status_of(job.run_dir).state == "finished"
