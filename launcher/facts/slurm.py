"""Slurm's commands: the one place that runs them."""

import subprocess
from collections.abc import Mapping, Sequence

from launcher.errors import SubmissionError

FURTHER_OPTIONS = ("SQUEUE_", "SCANCEL_", "SINFO_", "SACCT_")  # variables that these commands read as options: a filter would hide a job
SECONDS = {"sbatch": 60, "squeue": 15, "sinfo": 15, "scancel": 60, "sacct": 15, "scontrol": 60}  # without a controller these retry for minutes


def ask(argv: Sequence[str], site: Mapping[str, str]) -> "subprocess.CompletedProcess[str]":
    name = argv[0]
    environment = {key: value for key, value in site.items() if not key.startswith(FURTHER_OPTIONS)}
    try:
        return subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=SECONDS[name], stdin=subprocess.DEVNULL, check=False)
    except FileNotFoundError:
        raise SubmissionError(f"{name} is not on the PATH. Do this on a machine of the cluster, or use cluster=local.") from None
    except subprocess.TimeoutExpired:
        raise SubmissionError(
            f"{name} did not answer in {SECONDS[name]} s, so Slurm cannot be reached. Try again, or look with `scontrol ping`."
        ) from None


def said(done: "subprocess.CompletedProcess[str]") -> str:
    """The command's own words in one line."""
    words = (line.removeprefix(f"{done.args[0]}: error: ") for line in (done.stderr or done.stdout).splitlines())
    return "; ".join(word for word in words if word) or f"exit code {done.returncode}"
