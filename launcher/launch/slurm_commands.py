"""Slurm's own commands about jobs: their arguments, and what they answer. launcher/facts/slurm.py runs them."""

import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from launcher.errors import SubmissionError
from launcher.facts.slurm import ask, said
from launcher.launch.batch_script import parse_job_id

# squeue(1), job state codes
WAITING = frozenset({"PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "SPECIAL_EXIT"})
ENDED = frozenset({"BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "REVOKED", "TIMEOUT"})


# What squeue prints, and the year from which a start means no more: jobs without a time limit make Slurm expect the year 2537.
UNKNOWN, NEVER = "N/A", "2100"
NO_SUCH_NODES = "Requested node configuration is not available"  # what sbatch says of too many nodes, and where some of them are drained
UNAVAILABLE = "down,drain,fail,maint,reserved"  # sinfo(1), states of nodes that may come back; Slurm 22.05 knows all of them


@dataclass(frozen=True)
class QueuedJob:
    state: str  # one of squeue's words, such as PENDING
    reason: str  # why it waits; the word None where it does not
    start: str = UNKNOWN  # of a job that waits: when Slurm expects it to start

    @property
    def waits(self) -> bool:
        return self.state in WAITING

    @property
    def ended(self) -> bool:
        return self.state in ENDED

    def __str__(self) -> str:
        why = [self.reason] if self.reason != "None" else []
        when = [f"expected start {self.start}"] if is_near(self.start) else []
        return f"{self.state} ({', '.join([*why, *when])})" if self.waits and (why or when) else self.state


def is_near(start: str) -> bool:
    return start not in ("", UNKNOWN) and start < NEVER


def submit(argv: Sequence[str], environment: Mapping[str, str]) -> str:
    """Give a batch script to sbatch, which passes its own environment to the job; returns the job id.

    Raises:
        SubmissionError: with the message of sbatch.
    """
    done = ask(argv, environment)
    if done.returncode != 0:
        raise refusal(done)
    print(done.stderr, end="", file=sys.stderr)  # warnings of the site
    return parse_job_id(done.stdout)


def try_submission(argv: Sequence[str], environment: Mapping[str, str]) -> str:
    """Ask Slurm whether it could place this job (sbatch --test-only): what it expects, as a sentence, or an empty text where it says nothing.

    Raises:
        SubmissionError: with the message of sbatch, unless nodes that are down or drained now may be what is missing.
    """
    done = ask((argv[0], "--test-only", *argv[1:]), environment)
    if done.returncode == 0:
        found = re.search(r"to start at (\S+)", done.stderr)
        return f"Slurm expects the job to start at {found[1]}." if found and is_near(found[1]) else ""
    away = unavailable_nodes(environment) if NO_SUCH_NODES in done.stderr else ""
    if not away:
        raise refusal(done)
    return f"note: Slurm cannot place the job on the nodes that are available now ({said(done)}), and it may wait for long. Not available: {away}."


def refusal(done: "subprocess.CompletedProcess[str]") -> SubmissionError:
    return SubmissionError(f"sbatch refused the job: {said(done)}. Change the values of cluster=slurm. `sinfo` lists partitions and nodes.")


def unavailable_nodes(site: Mapping[str, str]) -> str:
    """As sinfo lists them; empty where there are none. Where sinfo cannot say, that: a job that only has to wait is not refused."""
    try:
        done = ask(("sinfo", "--noheader", f"--states={UNAVAILABLE}", "--format=%N"), site)
    except SubmissionError as error:
        return f"unknown, because {error}"
    return f"unknown, because sinfo failed: {said(done)}" if done.returncode else ",".join(dict.fromkeys(done.stdout.split()))


def queue(jobs: Sequence[str], site: Mapping[str, str]) -> dict[str, QueuedJob]:
    """What Slurm knows of these jobs; those that ended more than some minutes ago are absent.

    Raises:
        SubmissionError: when Slurm cannot be asked.
    """
    done = ask(("squeue", "--noheader", "--array", "--states=all", f"--jobs={','.join(jobs)}", "--format=%i|%T|%r|%S"), site)
    if "Invalid job id" in done.stderr:  # printed only when no other job is in the question
        return {}
    if done.returncode != 0:
        raise SubmissionError(f"squeue failed: {said(done)}")
    return parse_queue(done.stdout)


def parse_queue(stdout: str) -> dict[str, QueuedJob]:
    rows = [line.strip().split("|") for line in stdout.splitlines() if line.count("|") == 3]
    return {job: QueuedJob(state, reason, start) for job, state, reason, start in rows}


def accounted_ends(jobs: Sequence[str], site: Mapping[str, str]) -> dict[str, QueuedJob]:
    """How jobs have ended that squeue has forgotten, by the accounting; what goes on by it, and all where there is none, is absent.

    Raises:
        SubmissionError: when Slurm cannot be asked.
    """
    done = ask(("sacct", "--noheader", "--parsable2", "--allocations", f"--jobs={','.join(jobs)}", "--format=JobID,State"), site)
    rows = [line.split("|") for line in done.stdout.splitlines() if line.count("|") == 1] if done.returncode == 0 else []
    states = {job: state.split()[0] for job, state in rows if state.strip()}  # such as `CANCELLED by 1000`
    return {job: QueuedJob(state, "None") for job, state in states.items() if state in ENDED}


def cancel_pending(job: str, site: Mapping[str, str]) -> None:
    """Cancel a job that still waits. Slurm itself looks: one that has started meanwhile goes on.

    Raises:
        SubmissionError: when Slurm cannot be asked, or refuses.
    """
    done = ask(("scancel", "--state=PENDING", job), site)
    if done.returncode != 0 and "Invalid job id" not in done.stderr:
        raise SubmissionError(f"scancel failed: {said(done)}")


def requeue(job: str, site: Mapping[str, str]) -> None:
    """Queue a running job again; it is ended a moment later.

    Raises:
        SubmissionError: when Slurm cannot be asked, or refuses.
    """
    done = ask(("scontrol", "requeue", job), site)
    if done.returncode != 0:
        raise SubmissionError(f"scontrol requeue failed: {said(done)}")


def restarts(job: str, site: Mapping[str, str]) -> int:
    """How often Slurm has queued a job again. While the job ends, nothing else tells a requeue from a cancellation.

    Raises:
        SubmissionError: when Slurm cannot be asked.
    """
    done = ask(("scontrol", "--oneliner", "show", "job", job), site)
    found = re.search(r"\bRestarts=([0-9]+)", done.stdout)
    if found is None:
        raise SubmissionError(f"scontrol does not know job {job}: {said(done)}")
    return int(found[1])
