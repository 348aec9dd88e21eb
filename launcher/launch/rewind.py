"""checkpoint.resume=step-N: one start goes back to a named checkpoint, and with `start` to step 1. Later ones are set aside: no start takes them.

The request is not recorded in run.yaml: whatever starts the run again (a plain resume, Slurm, torchrun) goes on from what was saved since.
"""

from dataclasses import replace
from pathlib import Path

from conf import journal
from conf.committed import committed, damaged, faults, set_aside, step_of
from conf.run_dir import RunDir
from launcher.errors import ConfigError
from launcher.gate.judge import Judged

NEWEST = "newest"
START = "start"
ASIDE = "set-aside-"


def refuse_unusable(run_dir: RunDir, wanted: str) -> None:
    """Every file of the named checkpoint is read.

    Raises:
        ConfigError: where it is not there or not whole.
    """
    if wanted in (NEWEST, START):
        return
    named = run_dir.checkpoints / wanted
    problems = faults(named) if named.is_dir() else [f"{named} does not exist"]
    if problems:
        there = ", ".join(path.name for path in committed(run_dir)) or "none"
        raise ConfigError(f"checkpoint.resume={wanted} cannot be used: {problems[0]}. Committed checkpoints: {there}.")


def refuse_finished(run_dir: RunDir, wanted: str) -> None:
    """Raises ConfigError where a finished run is asked to go back: it would lose its model."""
    refuse_unusable(run_dir, wanted)
    if wanted != NEWEST:
        instead = "Start a new run." if wanted == START else f"Use the weights of that step: regimen export {run_dir.path}@{wanted}"
        raise ConfigError(f"{run_dir.path} is finished, and going back to {wanted} would replace its model. {instead}")


def rewound(decided: Judged, run_dir: RunDir) -> Judged:
    """Set later checkpoints aside, and return the same run without the request. The caller owns the folder."""
    wanted = decided.run.checkpoint.resume
    if wanted == NEWEST:
        return decided
    later = later_than(wanted, run_dir)
    aside = [set_aside(path, ASIDE) for path in later]
    journal.record(run_dir, journal.Rewound(wanted, tuple(path.name for path in aside)))
    for before, after in zip(later, aside, strict=True):
        what = f"{before.name} is later than {wanted} and" if wanted != START else f"The run begins at step 1 again, and {before.name}"
        print(f"{what} was set aside as {after}. Remove that folder when you do not need it.", flush=True)
    return replace(decided, run=replace(decided.run, checkpoint=replace(decided.run.checkpoint, resume=NEWEST)))


def later_than(wanted: str, run_dir: RunDir) -> list[Path]:
    """With `start` also those that were set aside as damaged: they would refuse a beginning."""
    if wanted == START:
        return [*committed(run_dir), *damaged(run_dir)]
    return [path for path in committed(run_dir) if step_of(path) > step_of(run_dir.checkpoints / wanted)]
