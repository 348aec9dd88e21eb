"""Which checkpoint a start goes on from, and which are removed.

A damaged one is set aside with a line that says so; it is never removed and never counts as kept.
"""

from dataclasses import dataclass
from pathlib import Path

from conf import journal
from conf.committed import DAMAGED, KEPT_WHOLE, committed, damaged, faults, set_aside, step_of
from conf.run_dir import RunDir
from trainers.checkpoints.commit import remove
from trainers.ranks.notes import tell


@dataclass(frozen=True)
class SetAside:
    step: int
    fault: str
    path: Path  # where it is now


def choose(run_dir: RunDir) -> Path | None:
    """The newest whole checkpoint, every byte of it compared with its hash; damaged ones that are newer are set aside. None: there is none yet.

    Raises:
        ValueError: where all checkpoints are damaged. They stay as they are.
    """
    passed_over: list[tuple[Path, str]] = []
    for checkpoint in committed(run_dir):
        problems = faults(checkpoint)
        if not problems:
            aside = [moved(path, fault) for path, fault in passed_over]
            tell_set_aside(run_dir, aside, f"The run goes on from {checkpoint.name}", step_of(checkpoint))
            return checkpoint
        passed_over.append((checkpoint, problems[0]))
    refuse_all_damaged(run_dir, passed_over)
    return None


def refuse_all_damaged(run_dir: RunDir, found: list[tuple[Path, str]]) -> None:
    aside = damaged(run_dir)
    if not found and not aside:
        return
    first = found[0][1] if found else f"{aside[-1]} was set aside because it is damaged"
    raise ValueError(
        f"No checkpoint of {run_dir.path} is whole: {first}. To begin at step 1 again, and set all of them aside: "
        f"regimen train resume={run_dir.path} checkpoint.resume=start"
    )


def moved(checkpoint: Path, fault: str) -> SetAside:
    return SetAside(step_of(checkpoint), fault, set_aside(checkpoint, DAMAGED))


def tell_set_aside(run_dir: RunDir, found: list[SetAside], then: str, whole: int) -> None:
    """On the terminal and in the journal. `whole`: the step of the newest whole checkpoint."""
    for each in found:
        lost = max(0, each.step - whole)
        journal.record(run_dir, journal.PassedOver(f"step-{each.step}", each.fault, each.path.name, lost))
        again = f": {lost} {'step is' if lost == 1 else 'steps are'} trained again" if lost else ""
        tell(run_dir, [f"WARNING: the checkpoint of step {each.step} is damaged: {each.fault}. It was set aside as {each.path.name}. {then}{again}."])


def prune(run_dir: RunDir, keep: int, best: Path | None, at_least: int = KEPT_WHOLE) -> None:
    """Leave `keep` whole checkpoints, and never fewer than `at_least`: the newest, the best one if there is one, and then the newest others.

    Sizes and manifests are compared, and hashes are not: a checkpoint is hashed when it is committed and when it is loaded.
    """
    problems = {checkpoint: faults(checkpoint, contents=False) for checkpoint in committed(run_dir)}
    whole = [checkpoint for checkpoint, found in problems.items() if not found]
    bad = [moved(checkpoint, found[0]) for checkpoint, found in problems.items() if found]
    tell_set_aside(run_dir, bad, f"{len(whole)} whole ones are left", max((step_of(path) for path in whole), default=0))
    needed = [checkpoint for checkpoint in whole if checkpoint in (whole[0], best)]
    others = [checkpoint for checkpoint in whole if checkpoint not in needed]
    doomed = others[max(0, max(keep, at_least) - len(needed)) :]
    for checkpoint in doomed:
        remove(checkpoint)
    if doomed:
        journal.record(run_dir, journal.Pruned(tuple(checkpoint.name for checkpoint in doomed)))
