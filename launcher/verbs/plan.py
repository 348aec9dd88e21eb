"""The verb plan: what train would do, in every form, with nothing done. What only one form needs is imported by that form."""

import json
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import OmegaConf

from conf.exit_codes import REFUSED
from conf.run_dir import RunDir
from conf.run_values import run_as_dict
from conf.schema import Composed, Slurm
from launcher.composition import recorded
from launcher.composition.compose import compose, compose_config, typed_run
from launcher.composition.given import given_values
from launcher.composition.reshaping import reshaping_lines
from launcher.errors import ConfigError
from launcher.gate.judge import Judged, judge_recorded, judge_run, with_unread
from launcher.gate.variants import judging_like
from launcher.launch.backends import refuse_several_local_nodes
from launcher.launch.plan import PLANNED_TIME, LaunchPlan, new_run_dir, plan_as_dict, plan_for
from launcher.verbs.plan_text import explanation_lines, matrix_lines, plan_text, recommendation_lines
from launcher.words import red_alarms

if TYPE_CHECKING:
    from launcher.gate.proposals import Change

Composing = Callable[[Sequence[str], Sequence[Path]], Composed]


def judged(overrides: Sequence[str], config_dirs: Sequence[Path], composing: Composing = compose) -> Judged:
    """The described run, judged; its notes also say which of the given keys it does not read. `composing`: compose, or a quicker way."""
    described = composing(overrides, config_dirs)
    if isinstance(described.cluster, Slurm) and described.cluster.after is not None:
        from launcher.launch.after import with_run_folder  # a plan of one run reads no other

        described = with_run_folder(described)
    return with_unread(judge_run(described), described, given_values(overrides, config_dirs))


def unstarted(overrides: Sequence[str], config_dirs: Sequence[Path], composing: Composing = compose) -> LaunchPlan:
    """The plan of a run whose folder does not exist yet, except that of a resumed run."""
    name, others = recorded.split_resume(overrides)
    if name is not None:
        return unstarted_again(named(name, others), others)
    decided = judged(overrides, config_dirs, composing)
    refuse_several_local_nodes(decided.run)
    return plan_for(decided, new_run_dir(decided.run, PLANNED_TIME))


def unstarted_again(run_dir: RunDir, overrides: Sequence[str]) -> LaunchPlan:
    """Of a run that goes on; what changes in its length is among the notes."""
    from launcher.launch import after, lengthen, measured_times, rewind, status  # a first plan reads no other run

    run, before = after.with_run_folder(recorded.resumed_run(run_dir, overrides)), recorded.recorded_run(run_dir)
    if status.status_of(run_dir).state == "finished" and not lengthen.changed_length(before, run):
        rewind.refuse_finished(run_dir, run.checkpoint.resume)
    rewind.refuse_unusable(run_dir, run.checkpoint.resume)
    measured_times.refuse_by_times(run, run_dir)
    length = lengthen.lengthening(run_dir, before, run)
    decided = judge_recorded(run)
    reshaped = reshaping_lines(before, decided.run, saved=lengthen.standing(run_dir, run) > 0)
    notes = [*(lengthen.lengthening_lines(length, run) if length else []), *reshaped]
    return plan_for(replace(decided, notes=(*notes, *decided.notes)), run_dir)


def named(name: str, others: Sequence[str]) -> RunDir:
    from launcher.launch import status

    return status.named_run(name, recorded.output_of(others))


def resumed(name: str, others: Sequence[str]) -> Composed:
    return recorded.resumed_run(named(name, others), others)


def show_plan(overrides: Sequence[str], config_dirs: Sequence[Path]) -> int:
    plan = unstarted(overrides, config_dirs)
    print(red_alarms(plan_text(plan, os.environ), sys.stdout))
    if not plan.judged.verdict.permitted:
        print("\n" + "\n".join(recommendations(plan.judged, overrides)))
        return REFUSED
    return 0


def save_run_file(overrides: Sequence[str], config_dirs: Sequence[Path], path: Path) -> int:
    """The described run, or with resume=RUN that run, as a file of its choices and changed values."""
    from launcher.composition.described import described, save

    name, others = recorded.split_resume(overrides)
    if name is not None and others:
        raise ConfigError(f"--save writes the run {name} as it was recorded. Leave out {others[0]}; overrides may follow the file.")
    run = compose(overrides, config_dirs) if name is None else recorded.recorded_run(named(name, others))
    save(described(run), path, f"A run of regimen. Overrides may follow it: regimen train {path.name} optim.lr=1e-4")
    print(f"wrote {path}. Check it with `regimen plan {shlex.quote(str(path))}`, start it with `regimen train {shlex.quote(str(path))}`.")
    return 0


def recommendations(decided: Judged, given: Sequence[str]) -> list[str]:
    return recommendation_lines(decided, proposals(decided, given), given)


def proposals(decided: Judged, given: Sequence[str]) -> "list[Change]":
    """What would fit instead of a refused run that `given` describes. A resumed run may change only what is free on a resume."""
    from launcher.gate.pasting import key_of
    from launcher.gate.proposals import alternatives

    found = alternatives(decided.run, decided.facts, judging_like(decided))
    fixed = recorded.split_resume(given)[0] is not None
    return [change for change in found if not fixed or all(key_of(text) in recorded.FREE for text in change.overrides)]


def proposals_as_dicts(decided: Judged, given: Sequence[str], config_dirs: Sequence[Path]) -> list[dict[str, object]]:
    """For programs; sizes are bytes."""
    from launcher.gate.pasting import pasted

    folders = [word for folder in config_dirs for word in ("--config-dir", str(folder))]
    return [
        {
            "overrides": list(change.overrides),
            "need": change.peak,
            "headroom": change.headroom,
            "cost": change.note,
            "command": shlex.join(["regimen", "train", *folders, *pasted(given, change.overrides)]),
        }
        for change in proposals(decided, given)
    ]


def show_plan_json(overrides: Sequence[str], config_dirs: Sequence[Path]) -> int:
    plan = unstarted(overrides, config_dirs)
    refused = not plan.judged.verdict.permitted
    told = {"proposals": proposals_as_dicts(plan.judged, overrides, config_dirs)} if refused else {}
    print(json.dumps(plan_as_dict(plan, dict(os.environ)) | told, indent=1))
    return REFUSED if refused else 0


def show_job(overrides: Sequence[str], config_dirs: Sequence[Path], kind: str, image: str | None) -> int:
    """A permitted run as a file for another cluster; what the plan has to say besides goes to stderr."""
    from launcher.launch.other_clusters import rendered

    if config_dirs:
        raise ConfigError(f"--as {kind}: --config-dir {config_dirs[0]} is a folder of this machine, which the image does not have. Leave it out.")
    decided = judged(overrides, config_dirs)
    plan = plan_for(decided, new_run_dir(decided.run, PLANNED_TIME))
    if not decided.verdict.permitted:
        print(red_alarms(plan_text(plan, os.environ), sys.stderr), file=sys.stderr)
        return REFUSED
    text = rendered(kind, plan, overrides, image)
    for note in decided.notes:
        print(f"note: {note}", file=sys.stderr)
    print(text, end="")
    return 0


def show_matrix(overrides: Sequence[str], config_dirs: Sequence[Path]) -> int:
    from launcher.gate.proposals import regime_matrix

    decided = unstarted(overrides, config_dirs).judged
    print("\n".join(matrix_lines(decided, regime_matrix(decided.run, decided.facts, judging_like(decided)))))
    return 0


def explain(overrides: Sequence[str], config_dirs: Sequence[Path]) -> int:
    judged = unstarted(overrides, config_dirs).judged
    print("\n".join(explanation_lines(judged)))
    return 0 if judged.verdict.permitted else REFUSED


def show_configuration(overrides: Sequence[str], config_dirs: Sequence[Path]) -> int:
    """The composed configuration; of a run that goes on, the recorded one."""
    name, others = recorded.split_resume(overrides)
    if name is not None:
        print(OmegaConf.to_yaml(OmegaConf.create(run_as_dict(resumed(name, others)))), end="")
        return 0
    config = compose_config(overrides, config_dirs)
    typed_run(config)
    print(OmegaConf.to_yaml(config), end="")
    return 0


def show_difference(overrides: Sequence[str], config_dirs: Sequence[Path], name: str) -> int:
    run_dir = named(name, recorded.split_resume(overrides)[1])
    before = flattened(run_as_dict(recorded.recorded_run(run_dir)))
    after = flattened(run_as_dict(unstarted(overrides, config_dirs).run))
    keys = [key for key in dict.fromkeys([*before, *after]) if before.get(key) != after.get(key)]
    print("\n".join(f"{key}: {before.get(key, '(absent)')} -> {after.get(key, '(absent)')}" for key in keys) or f"the same as {run_dir.path}")
    return 0


def flattened(values: dict[str, object], prefix: str = "") -> dict[str, object]:
    flat: dict[str, object] = {}
    for key, value in values.items():
        flat |= flattened(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat
