"""Which ends are followed by another start, how often, and what is said when there are no more."""

from pathlib import Path
from typing import Any

import pytest

from conf import journal
from conf.exit_codes import EXIT_CODES, WITHIN_BUDGET
from conf.run_dir import RunDir
from launcher.errors import NoProgress
from launcher.launch.outcome import Outcome
from launcher.launch.restart import as_started_again, budget, final, reason, refuse_used_up
from tests.described import described

RUN_DIR = RunDir(Path("/runs/one"))
DEMO = ("model=demo", "data=demo", "node=cpu", "cluster.ranks_per_node=2")
RUN, ROLLS_BACK = described(*DEMO), described(*DEMO, "training.on_nan=rollback")
CODES = [row.code for row in EXIT_CODES]
HELPS = {row.code for row in EXIT_CODES if row.again == WITHIN_BUDGET}
COMMIT = journal.Committed(5, 1, 0.1)


def history(*rows: journal.Row) -> list[dict[str, Any]]:
    return [{"time": 1.0, "event": row.event, **{name: value for name, value in vars(row).items() if value is not None}} for row in rows]


def starts(*starters: str) -> list[journal.Row]:
    return [journal.Started(by=by) for by in starters]


@pytest.mark.parametrize("code", CODES)
def test_only_what_another_start_may_help_is_started_again(code: int) -> None:
    ended = Outcome(code, "said")
    assert final(ended, history(*starts(journal.USER)), 2, RUN_DIR, RUN) == (None if code in HELPS else ended)


def test_a_crash_a_hang_and_a_lost_rank_may_be_helped() -> None:
    assert {1, 6, 76} == HELPS


@pytest.mark.parametrize("code", sorted(HELPS))
def test_without_a_budget_the_cause_is_the_end(code: int) -> None:
    assert final(Outcome(code, "said"), history(*starts(journal.USER)), 0, RUN_DIR, RUN) == Outcome(code, "said")


def test_a_budget_is_used_up_over_all_starters_together() -> None:
    events = history(*starts(journal.USER, journal.SUPERVISOR, journal.SLURM))
    end = final(Outcome(76, "Rank 1 hangs."), events, 2, RUN_DIR, RUN)
    assert end is not None
    assert end.exit_code == 82
    assert end.message == (
        "The run was started again 2 times without a new checkpoint, and backend.max_restarts allows no more. "
        "The last failure (exit code 76): Rank 1 hangs. What was saved is intact. Fix the cause, then go on with: regimen train resume=/runs/one"
    )
    assert final(Outcome(76, "Rank 1 hangs."), events, 3, RUN_DIR, RUN) is None


def test_a_new_checkpoint_gives_the_whole_budget_again() -> None:
    events = history(*starts(journal.USER, journal.SUPERVISOR, journal.SUPERVISOR), COMMIT)
    assert final(Outcome(6, "killed"), events, 2, RUN_DIR, RUN) is None


def test_a_start_by_hand_gives_none() -> None:
    events = history(*starts(journal.USER, journal.SUPERVISOR, journal.SUPERVISOR, journal.USER))
    end = final(Outcome(6, "killed"), events, 2, RUN_DIR, RUN)
    assert end is not None
    assert end.exit_code == 82


def test_a_start_that_slurm_makes_without_progress_is_refused_when_the_budget_is_used_up() -> None:
    events = history(*starts(journal.USER, journal.SLURM))
    refuse_used_up(events, 2, RUN_DIR)
    with pytest.raises(NoProgress, match=r"started again 2 times without .* The last start recorded no cause: it was ended from outside\."):
        refuse_used_up([*events, *history(*starts(journal.SLURM))], 2, RUN_DIR)
    with pytest.raises(NoProgress, match=r"The last recorded failure: Rank 1 hangs\."):
        refuse_used_up([*events, *history(*starts(journal.SLURM), journal.Failed(76, "Rank 1 hangs."))], 2, RUN_DIR)


def test_a_start_that_has_committed_may_be_followed_by_another_whatever_the_budget() -> None:
    """After a warning of the time limit, and after a preemption that lost little."""
    refuse_used_up(history(*starts(journal.USER), COMMIT), 0, RUN_DIR)
    refuse_used_up(history(*starts(journal.USER, journal.SLURM), COMMIT), 0, RUN_DIR)
    with pytest.raises(NoProgress):
        refuse_used_up(history(*starts(journal.USER), COMMIT, *starts(journal.SLURM)), 0, RUN_DIR)


@pytest.mark.parametrize(("stated", "allowed"), [((), (0, 2, 2)), (("backend.max_restarts=0",), (0, 0, 0)), (("backend.max_restarts=5",), (5, 5, 5))])
def test_a_stated_budget_holds_for_everything_that_starts_a_run(stated: tuple[str, ...], allowed: tuple[int, ...]) -> None:
    run = described("model=demo", "data=demo", "node=cpu", *stated)
    assert tuple(budget(run, by) for by in (journal.SUPERVISOR, journal.SLURM, journal.TORCHRUN)) == allowed


def test_a_nan_goes_back_three_times_without_a_new_checkpoint() -> None:
    ended, failed = Outcome(81, "The loss is NaN."), journal.Failed(81, "The loss is NaN.")
    assert final(ended, history(), 0, RUN_DIR, RUN) == ended
    assert final(ended, history(*[failed] * 2), 0, RUN_DIR, ROLLS_BACK) is None
    assert final(ended, history(*[failed] * 3, COMMIT), 0, RUN_DIR, ROLLS_BACK) is None
    end = final(ended, history(COMMIT, *[failed] * 3), 0, RUN_DIR, ROLLS_BACK)
    assert end == Outcome(
        81,
        "The loss is NaN. The run went back 3 times without a new checkpoint, each time to half the learning rate (training.on_nan=rollback).",
    )


def test_other_ends_of_a_run_that_goes_back_for_a_nan_are_as_ever() -> None:
    assert final(Outcome(76, "hangs"), history(), 0, RUN_DIR, ROLLS_BACK) == Outcome(76, "hangs")


def test_memory_that_runs_out_is_met_with_half_of_the_micro_batch_until_there_is_none() -> None:
    ended, sizes = Outcome(80, "Out of memory at step 3."), []
    run = described(*DEMO, "training.on_oom=split", "training.micro_batch=6", "training.accumulation=1", "evaluation.micro_batch=8")
    while final(ended, history(), 0, RUN_DIR, run) is None:
        said = reason(ended, run)
        run = as_started_again(ended, run)
        assert said == f"training.on_oom=split: training.micro_batch={run.training.micro_batch}, training.accumulation={run.training.accumulation}"
        sizes.append((run.training.micro_batch, run.training.accumulation, run.training.effective_batch, run.evaluation.micro_batch))
    assert sizes == [(3, 2, 12, 3), (1, 6, 12, 1)]
    assert final(ended, history(), 0, RUN_DIR, run) == Outcome(
        80, "Out of memory at step 3. No smaller micro-batch keeps the effective batch (training.on_oom=split)."
    )


def test_without_that_key_memory_that_runs_out_is_the_end() -> None:
    ended = Outcome(80, "Out of memory at step 3.")
    assert final(ended, history(), 2, RUN_DIR, described(*DEMO, "training.micro_batch=6")) == ended
    assert as_started_again(ended, RUN) == RUN
