"""The verb plan: what train would do, in every form, with nothing done. What only one form needs is imported by that form."""

import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from omegaconf import OmegaConf

from conf.exit_codes import REFUSED
from conf.run_dir import RunDir, run_as_dict
from conf.schema import Composed, Run
from launcher.composition import recorded
from launcher.composition.compose import compose, compose_config, typed_run
from launcher.gate.judge import Judged, disk_of, judge_recorded, judge_run
from launcher.gate.verdict import Verdict, judge
from launcher.launch.backends import refuse_several_local_nodes
from launcher.launch.plan import PLANNED_TIME, LaunchPlan, new_run_dir, plan_as_dict, plan_for
from launcher.memory.estimate import estimate
from launcher.verbs.plan_text import explanation_lines, matrix_lines, plan_text, recommendation_lines
from launcher.words import red_alarms


def judged(overrides: Sequence[str], config_dirs: Sequence[Path]) -> Judged:
    return judge_run(compose(overrides, config_dirs))


def unstarted(overrides: Sequence[str], config_dirs: Sequence[Path]) -> LaunchPlan:
    """The plan of a run whose folder does not exist yet, except that of a resumed run."""
    name, others = recorded.split_resume(overrides)
    if name is not None:
        return plan_for(judge_recorded(resumed(name, others)), named(name, others))
    decided = judged(overrides, config_dirs)
    refuse_several_local_nodes(decided.run)
    return plan_for(decided, new_run_dir(decided.run, PLANNED_TIME))


def named(name: str, others: Sequence[str]) -> RunDir:
    from launcher.launch import status

    return status.named_run(name, recorded.output_of(others))


def resumed(name: str, others: Sequence[str]) -> Composed:
    return recorded.resumed_run(named(name, others), others)


def show_plan(overrides: Sequence[str], config_dirs: Sequence[Path]) -> int:
    plan = unstarted(overrides, config_dirs)
    print(red_alarms(plan_text(plan, os.environ), sys.stdout))
    if not plan.judged.verdict.permitted:
        print("\n" + "\n".join(recommendations(plan.judged)))
        return REFUSED
    return 0


def recommendations(decided: Judged) -> list[str]:
    from launcher.gate.proposals import alternatives

    return recommendation_lines(alternatives(decided.run, decided.facts, judging_like(decided)))


def judging_like(decided: Judged) -> Callable[[Run], Verdict]:
    """Judges variants of a run by the same model; what is free on the GPUs counts on the same node only."""

    def judged_variant(run: Run) -> Verdict:
        free = decided.node.gpu_free if run.node == decided.run.node else ()
        return judge(run, decided.facts, estimate(run, decided.facts), free or None, disk_of(run, decided.node))

    return judged_variant


def show_plan_json(overrides: Sequence[str], config_dirs: Sequence[Path]) -> int:
    plan = unstarted(overrides, config_dirs)
    print(json.dumps(plan_as_dict(plan, dict(os.environ)), indent=1))
    return 0 if plan.judged.verdict.permitted else REFUSED


def show_matrix(overrides: Sequence[str], config_dirs: Sequence[Path]) -> int:
    from launcher.gate.proposals import regime_matrix

    decided = unstarted(overrides, config_dirs).judged
    print("\n".join(matrix_lines(decided, regime_matrix(decided.run, decided.facts, judging_like(decided)))))
    return 0


def explain(overrides: Sequence[str], config_dirs: Sequence[Path]) -> int:
    print("\n".join(explanation_lines(unstarted(overrides, config_dirs).judged)))
    return 0


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
