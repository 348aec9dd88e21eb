"""A real Slurm cluster of two nodes on this machine, for tests and for benchmarks/reliability."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.waiting import LONG_PAUSE, PATIENCE, wait_until

NEEDED = ("slurmctld", "slurmd", "sbatch", "munged", "unshare", "setpriv")
FOR_ACCOUNTING = ("slurmdbd", "mariadbd", "mariadb-install-db", "mariadb", "sacctmgr", "sacct")
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

        job = wait_until(reached, f"job {job_id} that is {' or '.join(states)}", pause=LONG_PAUSE)
        assert job is not None
        return job


def missing(accounting: bool = False) -> str:
    """What a cluster lacks here, in words; empty where it can be started."""
    needed = (*NEEDED, *FOR_ACCOUNTING) if accounting else NEEDED
    absent = [name for name in needed if shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin") is None]
    if not absent and os.geteuid() == 0:
        return ""
    return f"a Slurm cluster needs root and {', '.join(absent) or 'nothing else'}: run `make slurm-packages` as root"


@contextmanager
def running_cluster(folder: Path, accounting: bool = False) -> Iterator[Cluster]:
    """With its files in `folder`; it ends with this process, however that ends: setpriv and --kill-child see to it."""
    environment = {**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin", "SLURM_CONF": str(folder / "slurm.conf")}
    inside = ("unshare", "--pid", "--mount-proc", "--fork", "--kill-child=KILL", sys.executable, str(LAB), str(folder), str(PATIENCE))
    inside = (*inside, "accounting") if accounting else inside
    with subprocess.Popen(("setpriv", "--pdeathsig", "KILL", *inside), env=environment, stdout=subprocess.PIPE, text=True) as lab:
        assert lab.stdout is not None
        try:
            assert lab.stdout.readline() == "ready\n", "the cluster did not start; its logs are above"
            yield Cluster(environment)
        finally:
            lab.kill()
