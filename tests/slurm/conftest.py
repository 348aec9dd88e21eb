"""A real Slurm cluster of two nodes for the tests of this folder."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.waiting import PATIENCE, wait_until

NEEDED = ("slurmctld", "slurmd", "sbatch", "munged", "unshare", "setpriv")
LAB = Path(__file__).parent / "lab.py"


@dataclass(frozen=True)
class Cluster:
    environment: dict[str, str]

    def ask(self, *argv: str) -> str:
        return subprocess.run(argv, env=self.environment, capture_output=True, text=True, timeout=PATIENCE, check=True).stdout

    def job(self, job_id: str) -> dict[str, str]:
        """The fields of `scontrol show job`, such as JobState, ExitCode, Restarts."""
        return dict(word.partition("=")[::2] for word in self.ask("scontrol", "show", "job", job_id).split())

    def wait_for(self, job_id: str, *states: str) -> dict[str, str]:
        def reached() -> dict[str, str] | None:
            job = self.job(job_id)
            return job if job["JobState"] in states else None

        job = wait_until(reached, f"job {job_id} that is {' or '.join(states)}")
        assert job is not None
        return job


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    missing = [name for name in NEEDED if shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin") is None]
    if missing or os.geteuid() != 0:
        pytest.skip(f"a Slurm cluster needs root and {', '.join(missing) or 'nothing else'}: run `make slurm-packages` as root")
    folder = tmp_path_factory.mktemp("slurm")
    environment = {**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin", "SLURM_CONF": str(folder / "slurm.conf")}
    # setpriv and --kill-child: the cluster dies with these tests, however they end
    argv = (
        "setpriv",
        "--pdeathsig",
        "KILL",
        "unshare",
        "--pid",
        "--mount-proc",
        "--fork",
        "--kill-child=KILL",
        sys.executable,
        str(LAB),
        str(folder),
        str(PATIENCE),
    )
    with subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE, text=True) as lab:
        assert lab.stdout is not None
        try:
            assert lab.stdout.readline() == "ready\n", "the cluster did not start; its logs are above"
            yield Cluster(environment)
        finally:
            lab.kill()
