"""Whether a run that failed or was interrupted is started again by itself: one decision for the supervisor, Slurm and the user's own torchrun.

What can help is a column of conf/exit_codes.py. How often is counted in the journal, over everything that starts the run again, and only a
new checkpoint sets the count back: budgets of several starters never multiply.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from conf import journal
from conf.exit_codes import EXIT_CODES, NO_PROGRESS, NOT_A_NUMBER, OUT_OF_MEMORY, WITHIN_BUDGET, Again
from conf.journal import roll_backs, starts_without_progress
from conf.run_dir import RunDir
from conf.schema import Run
from launcher.errors import NoProgress
from launcher.launch.outcome import Outcome
from launcher.words import plural

# backend.max_restarts=null: on this machine a person may be waiting for the first error; three starts in all where something else starts runs again.
BY_ITSELF = {journal.SUPERVISOR: 0, journal.SLURM: 2, journal.TORCHRUN: 2}


ROLL_BACKS = 3  # without a new checkpoint between: the rate is an eighth then
NO_MORE = f"The run went back {ROLL_BACKS} times without a new checkpoint, each time to half the learning rate (training.on_nan=rollback)."


NOT_SMALLER = "No smaller micro-batch keeps the effective batch (training.on_oom=split)."


def goes_back(outcome: Outcome, run: Run) -> bool:
    return outcome.exit_code == NOT_A_NUMBER and run.training.on_nan == "rollback"


def splits(outcome: Outcome, run: Run) -> bool:
    return outcome.exit_code == OUT_OF_MEMORY and run.training.on_oom == "split"


def as_started_again(outcome: Outcome, run: Run) -> Run:
    """What the next start trains after an attempt of `run` ended with `outcome`: the same run, where memory ran out in smaller micro-batches.

    All ranks have ended then. A rank that ran out of memory alone could not go on: the others wait for it in a collective.
    """
    return (split(run) or run) if splits(outcome, run) else run


def split(run: Run) -> Run | None:
    """The run with the largest micro-batch of at most half of its own that keeps the effective batch; None where there is none."""
    from launcher.gate.changes import micro_batches, with_micro_batch  # few runs need it

    sizes = [size for size in micro_batches(run) if size <= run.training.micro_batch // 2]
    return with_micro_batch(run, sizes[0]) if sizes else None


def reason(outcome: Outcome, run: Run) -> str:
    """Which key has `run` started again after it ended with `outcome`, and what is different then."""
    if goes_back(outcome, run):
        return "training.on_nan=rollback: with half the learning rate"
    if splits(outcome, run):
        training = as_started_again(outcome, run).training
        return f"training.on_oom=split: training.micro_batch={training.micro_batch}, training.accumulation={training.accumulation}"
    return "backend.max_restarts"


def budget(run: Run, by: str) -> int:
    """How often `by` may start the run again without a new checkpoint."""
    stated = run.backend.max_restarts
    return BY_ITSELF[by] if stated is None else stated


def again(exit_code: int) -> Again:
    return next(row.again for row in EXIT_CODES if row.code == exit_code)


def final(outcome: Outcome, events: Sequence[dict[str, Any]], allowed: int, run_dir: RunDir, run: Run) -> Outcome | None:
    """What `run` ends with, after an attempt ended with `outcome`; None: it is started again."""
    if goes_back(outcome, run):
        return None if roll_backs(events, None) < ROLL_BACKS else replace(outcome, message=f"{outcome.message} {NO_MORE}")
    if splits(outcome, run):
        return None if split(run) is not None else replace(outcome, message=f"{outcome.message} {NOT_SMALLER}")
    if again(outcome.exit_code) != WITHIN_BUDGET or allowed == 0:
        return outcome
    used = starts_without_progress(events)
    if used < allowed:
        return None
    return Outcome(NO_PROGRESS, used_up(used, f"The last failure (exit code {outcome.exit_code}): {outcome.message}", run_dir))


def refuse_used_up(events: Sequence[dict[str, Any]], allowed: int, run_dir: RunDir) -> None:
    """Before a start that Slurm or torchrun makes by itself.

    Raises:
        NoProgress: where the start before committed nothing, and the budget is used up.
    """
    used = starts_without_progress(events)
    if used >= allowed and not progressed(events):
        before = next((row for event in reversed(events) if isinstance(row := journal.row_of(event), journal.Failed | journal.Ended)), None)
        cause = "The last start recorded no cause: it was ended from outside." if before is None else f"The last recorded failure: {before.message}"
        raise NoProgress(used_up(used, cause, run_dir))


def progressed(events: Sequence[dict[str, Any]]) -> bool:
    """Whether the newest start has committed a checkpoint."""
    newest = [event["event"] for event in events if event["event"] in (journal.Started.event, journal.Committed.event)]
    return newest[-1:] == [journal.Committed.event]


def used_up(used: int, cause: str, run_dir: RunDir) -> str:
    how = f"The run was started again {plural(used, 'time')} without a new checkpoint" if used else "The run was interrupted before a new checkpoint"
    return (
        f"{how}, and backend.max_restarts allows no {'more' if used else 'restart'}. {cause} "
        f"What was saved is intact. Fix the cause, then go on with: regimen train resume={run_dir.path}"
    )
