"""checkpoint.resume=step-N: one start goes back to a named checkpoint. Later checkpoints are set aside, so that the newest is the named one.

The request is not recorded in run.yaml: whatever starts the run again (a plain resume, Slurm, torchrun) goes on from what was saved since.
"""

import os
from dataclasses import replace
from pathlib import Path

from conf import journal
from conf.committed import committed, faults, step_of
from conf.run_dir import RunDir
from launcher.errors import ConfigError
from launcher.gate.judge import Judged

NEWEST = "newest"
ASIDE = "set-aside-"


def refuse_unusable(run_dir: RunDir, wanted: str) -> None:
    """Every file of the named checkpoint is read.

    Raises:
        ConfigError: where it is not there or not whole.
    """
    if wanted == NEWEST:
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
        raise ConfigError(
            f"{run_dir.path} is finished, and going back to {wanted} would replace its model. "
            f"Use the weights of that step: regimen export {run_dir.path}@{wanted}"
        )


def rewound(decided: Judged, run_dir: RunDir) -> Judged:
    """Set later checkpoints aside, and return the same run without the request. The caller owns the folder."""
    wanted = decided.run.checkpoint.resume
    if wanted == NEWEST:
        return decided
    later = [path for path in committed(run_dir) if step_of(path) > step_of(run_dir.checkpoints / wanted)]
    aside = [set_aside(path) for path in later]
    journal.record(run_dir, journal.Rewound(wanted, tuple(path.name for path in aside)))
    for before, after in zip(later, aside, strict=True):
        print(f"{before.name} is later than {wanted} and was set aside as {after}. Remove that folder when you do not need it.", flush=True)
    return replace(decided, run=replace(decided.run, checkpoint=replace(decided.run.checkpoint, resume=NEWEST)))


def set_aside(checkpoint: Path) -> Path:
    number = 1
    while (target := checkpoint.with_name(f"{ASIDE}{checkpoint.name}{'' if number == 1 else f'-{number}'}")).exists():
        number += 1
    os.rename(checkpoint, target)
    return target
