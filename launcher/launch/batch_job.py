"""Runs that belong to Slurm: submitted, watched, stopped, and what their jobs record of themselves."""

import os
import socket
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

from conf import journal
from conf.exit_codes import AFTER_WARNING, CONFIG, DONE, SAVED
from conf.run_dir import RunDir
from launcher.composition.recorded import recorded_run
from launcher.errors import ConfigError, NoProgress, RunLocked, SubmissionError
from launcher.gate.judge import Judged
from launcher.launch import execute, lock, restart, slurm_commands
from launcher.launch.outcome import Outcome, outcome_of
from launcher.launch.plan import LaunchPlan, plan_for
from launcher.launch.slurm_commands import QueuedJob
from launcher.launch.status import RunStatus, status_of


def submit_fresh(judged: Judged) -> RunDir:
    """Submit a judged run and return its folder at once; a refused submission leaves none."""
    run_dir = execute.start_fresh(judged)
    try:
        plan = plan_for(judged, run_dir)
        job = ask_sbatch(plan)
    except BaseException:  # Ctrl-C too
        execute.remove_run_dir(run_dir.path)
        raise
    record_submission(plan, job)
    return run_dir


def submit_again(plan: LaunchPlan, held: lock.Owner) -> RunDir:
    """Submit a run that goes on in its folder; the job itself needs no lock, since refuse_active asks Slurm."""
    try:
        record_submission(plan, ask_sbatch(plan))
    finally:
        lock.release(plan.run_dir, held)
    return plan.run_dir


def ask_sbatch(plan: LaunchPlan) -> str:
    execute.write_plan(plan, os.environ)
    environment = plan.command.environment(os.environ)
    expected = slurm_commands.try_submission(plan.command.argv, environment)
    if expected:
        print(expected, flush=True)
    return slurm_commands.submit(plan.command.argv, environment)


def record_submission(plan: LaunchPlan, job: str) -> None:
    journal.record(plan.run_dir, journal.Submitted(job, os.environ.get(journal.VIA)))
    print(f"submitted as Slurm job {job}. run folder: {plan.run_dir.path}", flush=True)


def refuse_active(run_dir: RunDir) -> None:
    """Two jobs in one folder would destroy each other's checkpoints.

    Raises:
        RunLocked: when the run's job waits or runs.
        SubmissionError: when it has a job and Slurm cannot be asked.
    """
    job = status_of(run_dir).job
    if job is None:
        return
    queued = slurm_commands.queue([job], os.environ).get(job)
    if queued is not None and not queued.ended:
        raise RunLocked(
            f"{run_dir.path} belongs to Slurm job {job}: {queued}. "
            f"Follow it with `regimen status --follow {run_dir.path}`, or end it with `regimen stop {run_dir.path}`."
        )


def as_slurm_says(found: Sequence[RunStatus]) -> list[RunStatus]:
    """The same runs with what squeue knows of their jobs; one question for all of them."""
    jobs = [now.job for now in found if now.job is not None]
    if not jobs:
        return [*found]
    try:
        queue = slurm_commands.queue(jobs, os.environ)
    except SubmissionError as error:  # the files are still worth showing
        return [now if now.job is None else replace(now, message=f"{now.message}; unconfirmed: {error}") for now in found]
    known = {**accounted_ends([job for job in jobs if job not in queue]), **queue}
    return [now if now.job is None else confirmed(now, known.get(now.job)) for now in found]


def accounted_ends(forgotten: Sequence[str]) -> dict[str, QueuedJob]:
    """How jobs ended that squeue has forgotten, where the site has accounting and it answers."""
    try:
        return slurm_commands.accounted_ends(forgotten, os.environ) if forgotten else {}
    except SubmissionError:
        return {}


def confirmed(now: RunStatus, queued: QueuedJob | None) -> RunStatus:
    if queued is None or queued.ended:
        newest = status_of(now.run_dir)  # the job may have recorded its end between the two questions
        return newest if newest.job is None else gone(newest, queued)
    return replace(now, state="queued" if queued.waits else "running", message=f"Slurm job {now.job}: {queued}")


def gone(now: RunStatus, queued: QueuedJob | None) -> RunStatus:
    """Slurm ended the job, and no process of it could record an end: cancelled, killed for memory or time, its node failed."""
    how = "is gone from the queue" if queued is None else f"ended as {queued}"
    again = f"What was saved is intact. Go on with: regimen train resume={now.run_dir.path}"
    return replace(now, state="dead", message=f"Slurm job {now.job} {how} without recording why. Logs: {now.run_dir.logs}. {again}")


def cancel(run_dir: RunDir, job: str) -> bool:
    """Take a waiting job out of the queue; false when it has started meanwhile."""
    slurm_commands.cancel_pending(job, os.environ)
    queued = slurm_commands.queue([job], os.environ).get(job)
    if queued is not None and not queued.ended:
        return False
    message = f"cancelled in the queue (Slurm job {job}). Go on with: regimen train resume={run_dir.path}"
    journal.record(run_dir, journal.Ended(SAVED, message))
    return True


def job_start(run_dir: RunDir, job: str) -> int:
    """In the job, before its ranks start: first start, requeue by us or by Slurm, or the script submitted by hand.

    Raises:
        RunLocked: when another job works in the folder.
        NoProgress: when Slurm started the run again and again without a new checkpoint.
    """
    if status_of(run_dir).job not in (None, job):
        refuse_active(run_dir)
    execute.forget_stop_of_slurm(run_dir)
    execute.clear_traces(run_dir)
    by = starter(run_dir, job)
    if by == journal.SLURM:
        try:
            restart.refuse_used_up(journal.events(run_dir), allowed(run_dir), run_dir)
        except NoProgress as error:
            execute.finish(run_dir, Outcome(error.exit_code, str(error)))
            raise
    journal.record(run_dir, journal.Started(socket.gethostname(), by, job))
    return 0


def allowed(run_dir: RunDir) -> int:
    """Starts without a new checkpoint. Where run.yaml is damaged or gone: none; the ranks cannot read it either, and say so."""
    try:
        return restart.budget(recorded_run(run_dir), journal.SLURM)
    except (ConfigError, OSError):
        return 0


def starter(run_dir: RunDir, job: str) -> str:
    """A job's first start was wanted by a person; a later one is a requeue, by us or by Slurm."""
    started = any(event["event"] == journal.Started.event and event.get("job") == job for event in journal.events(run_dir))
    return journal.SLURM if started else journal.USER


def setup_failed(run_dir: RunDir, job: str, code: int) -> int:
    """In the job, where a line of cluster.setup failed: no rank was started, and a second try would end the same way."""
    said = f"A line of cluster.setup failed with exit code {code}. {run_dir.logs}/slurm-{job}.txt holds what it said."
    again = f"Change it with: regimen train resume={run_dir.path} 'cluster.setup=[...]'"
    ended = execute.finish(run_dir, Outcome(CONFIG, f"{said} {again}"))
    print(ended.message, flush=True)
    return ended.exit_code


def job_end(run_dir: RunDir, job: str, agent_code: int, ending: bool = False) -> int:
    """In the job, after its ranks: queue it again where Slurm stopped them or a new start may help; the exit code of the run.

    Args:
        ending: Slurm ends the job by itself, so what comes next is not decided here.
    """
    by = execute.forget_stop_of_slurm(run_dir)
    outcome = outcome_of(run_dir, agent_code)
    if by and outcome.exit_code == SAVED:
        journal.record(run_dir, journal.StopRequested(by))
    if ending and outcome.exit_code != DONE:
        return ended_by_slurm(run_dir, job, outcome)
    if by and restart.again(outcome.exit_code) == AFTER_WARNING:
        return queue_again(run_dir, job, outcome)
    run = recorded_run(run_dir)
    end = outcome if run_dir.stop.exists() else restart.final(outcome, journal.events(run_dir), allowed(run_dir), run_dir, run)
    if end is None:
        journal.record(run_dir, journal.Failed(outcome.exit_code, outcome.message))
        print(f"Exit code {outcome.exit_code}: {outcome.message}\nThe job is queued again ({restart.reason(outcome, run)}).", flush=True)
        execute.change(run_dir, restart.as_started_again(outcome, run))
        return queue_again(run_dir, job, outcome)
    ended = execute.finish(run_dir, end)
    print(ended.message, flush=True)
    return ended.exit_code


def ended_by_slurm(run_dir: RunDir, job: str, outcome: Outcome) -> int:
    """After scontrol requeue the job is in the queue again; after scancel or the time limit it is at its end."""
    if requeued_by_slurm(job):
        journal.record(run_dir, journal.Requeued(job))
        return outcome.exit_code
    ended = execute.finish(run_dir, Outcome(outcome.exit_code, f"Slurm ended job {job} (scancel, or its time limit): {outcome.message}"))
    print(ended.message, flush=True)
    return ended.exit_code


def requeued_by_slurm(job: str) -> bool:
    """Whether Slurm has queued the job again since this start of it.

    Raises:
        SubmissionError: when Slurm cannot be asked.
    """
    return slurm_commands.restarts(job, os.environ) > int(os.environ.get("SLURM_RESTART_COUNT") or 0)  # not set in the first start


def queue_again(run_dir: RunDir, job: str, outcome: Outcome) -> int:
    journal.record(run_dir, journal.Requeued(job))  # before it is done: Slurm ends this process a moment later
    try:
        slurm_commands.requeue(job, os.environ)
    except SubmissionError as error:
        with suppress(SubmissionError):  # what scontrol said first is told below
            if requeued_by_slurm(job):  # it was faster, as where a node has failed
                return 0
        why = "saved before the time limit" if outcome.exit_code == SAVED else outcome.message
        message = f"{why}, but not queued again: {error} Go on with: regimen train resume={run_dir.path}"
        journal.record(run_dir, journal.Ended(outcome.exit_code, message))
        return outcome.exit_code
    return 0
