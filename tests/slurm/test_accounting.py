"""A Slurm that keeps accounts and soon forgets its jobs: what squeue no longer knows is asked of sacct."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from conf import journal
from launcher.errors import ConfigError
from launcher.launch import batch_job
from launcher.launch.after import awaited_jobs
from launcher.launch.elsewhere import job_has_ended
from launcher.launch.slurm_commands import accounted_ends, queue
from launcher.launch.status import status_of
from tests.described import described
from tests.slurm.cluster import Cluster, missing, running_cluster
from tests.slurm.jobs import Job, submit
from tests.slurm.test_train import RUN, CommandLine, one_node_drained
from tests.waiting import LONG_PAUSE, wait_until

pytestmark = [pytest.mark.slurm, pytest.mark.long]


@pytest.fixture(scope="module")
def accounted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    why = missing(accounting=True)
    if why:
        pytest.skip(why)
    with running_cluster(tmp_path_factory.mktemp("accounts"), accounting=True) as found:
        yield found


@pytest.fixture
def asked(accounted: Cluster, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """This process asks that cluster."""
    for name, value in accounted.environment.items():
        monkeypatch.setenv(name, value)
    return accounted


def forgotten(job: Job) -> bool:
    return job.number not in queue([job.number], os.environ)


def cancelled(cluster: Cluster, folder: Path) -> Job:
    """A job that was cancelled while it waited, of which no process could record the end, and which squeue has forgotten."""
    with one_node_drained(cluster):
        job = submit(cluster, folder, "finish")
        cluster.ask("scancel", job.number)
    wait_until(lambda: forgotten(job), f"job {job.number} that squeue has forgotten", pause=LONG_PAUSE)
    wait_until(lambda: job.number in accounted_ends([job.number], os.environ), "end in the accounts", pause=LONG_PAUSE)
    return job


def test_how_a_forgotten_job_ended_is_told_by_status_stop_and_the_owner_of_a_lock(
    asked: Cluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = cancelled(asked, tmp_path / "demo" / "one")
    [now] = batch_job.as_slurm_says([status_of(job.run_dir)])
    assert (now.state, f"Slurm job {job.number} ended as CANCELLED without recording why." in now.message) == ("dead", True)
    batch_job.refuse_active(job.run_dir)  # nobody works there
    assert job_has_ended(job.number)
    said = CommandLine(asked, tmp_path).call("stop", str(job.run_dir.path))
    assert (said.returncode, "is not running. It is dead." in said.stdout) == (0, True)


def test_a_run_that_finished_before_its_job_was_forgotten_is_not_waited_for(asked: Cluster, tmp_path: Path) -> None:
    first = submit(asked, tmp_path / "demo" / "first", "finish")
    wait_until(lambda: first.names[-1:] == ["end"] and forgotten(first), "end of the first job", pause=LONG_PAUSE)
    cluster = described("model=demo", "data=demo", "cluster=slurm", "node=cpu", f"cluster.after={first.run_dir.path}").cluster
    assert awaited_jobs(cluster) == ()
    failed = submit(asked, tmp_path / "demo" / "second", "fail")
    wait_until(lambda: failed.names[-1:] == ["end"] and forgotten(failed), "end of the second job", pause=LONG_PAUSE)
    cluster = described("model=demo", "data=demo", "cluster=slurm", "node=cpu", f"cluster.after={failed.run_dir.path}").cluster
    with pytest.raises(ConfigError, match="that run is failed, and nothing will start it again"):
        awaited_jobs(cluster)


def test_a_real_run_is_submitted_followed_and_accounted(asked: Cluster, tmp_path: Path) -> None:
    regimen = CommandLine(asked, tmp_path)
    submitted = regimen.submit("training.max_steps=2")
    wait_until(lambda: regimen.status(submitted.run_dir)["state"] == "finished", "finished run", pause=5.0)
    wait_until(lambda: submitted.job in accounted_ends([submitted.job], os.environ), "end in the accounts", pause=LONG_PAUSE)
    assert accounted_ends([submitted.job], os.environ)[submitted.job].state == "COMPLETED"
    assert journal.events(submitted.run_dir)[-1]["exit_code"] == 0


@pytest.mark.parametrize(
    ("account", "said"),
    [("nope", "Invalid account or account/partition combination specified"), ("empty", "Job violates accounting/QOS policy")],
)
def test_an_unknown_account_and_a_quota_are_one_message_and_leave_nothing(account: str, said: str, asked: Cluster, tmp_path: Path) -> None:
    done = CommandLine(asked, tmp_path).call("train", *RUN, f"output={tmp_path / 'outputs'}", f"cluster.account={account}")
    assert (done.returncode, done.stderr.count("regimen:")) == (5, 1)
    assert "sbatch refused the job: " in done.stderr
    assert said in done.stderr
    assert not (tmp_path / "outputs").exists() or not list((tmp_path / "outputs").iterdir())
