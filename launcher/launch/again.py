"""A recorded run is taken up again: the folder becomes this process's own, and what only the last attempt was about is removed."""

from collections.abc import Mapping

from conf import journal
from conf.run_dir import RunDir
from launcher.composition import recorded
from launcher.gate.judge import Judged
from launcher.launch import execute, lock, rewind, status
from launcher.launch.foreign import NO_TRUST, Trust
from launcher.launch.plan import LaunchPlan, plan_for


def take_again(decided: Judged, run_dir: RunDir, site: Mapping[str, str], trust: Trust = NO_TRUST) -> tuple[LaunchPlan, lock.Owner]:
    """Own the folder first, and only then clear what the last attempt left in it; `site`: the environment that the ranks inherit."""
    held = execute.own(run_dir, None, trust.take_over)
    execute.clear_last_attempt(run_dir)
    if status.status_of(run_dir).state == "finished":
        journal.record(run_dir, journal.Reopened())
    plan = plan_for(rewind.rewound(decided, run_dir), run_dir)
    for change in recorded.changes(run_dir, plan.run):
        journal.record(run_dir, change)
    execute.write_plan(plan, site)
    return plan, held
