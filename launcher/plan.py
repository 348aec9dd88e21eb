"""One run from overrides to a LaunchPlan: everything that will happen, decided and nothing done."""

import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from conf.run_dir import RunDir, run_as_dict
from conf.schema import Run
from launcher.adapter import with_adapter_folder
from launcher.attention import with_attention
from launcher.backends import LAUNCHER, Command, accelerate_config, command, node_argv
from launcher.batch_script import HEAD, NODE_RANK, PORT, contradicting_variables, render, sbatch_argv
from launcher.compatibility import incompatibilities
from launcher.errors import ConfigError
from launcher.expectations import Expectations, expect, refuse_too_few, trained_samples
from launcher.extras import refuse_absent
from launcher.fit import fitted, opened
from launcher.gate import Verdict, judge
from launcher.memory.estimate import MemoryEstimate, estimate
from launcher.model_facts import ModelFacts, is_folder, model_facts, read_architecture, refuse_other_weights
from launcher.model_facts.grown import grown
from launcher.moves import choice
from launcher.named_modules import refuse_unknown_modules
from launcher.node_facts import NodeFacts, settle_node
from launcher.settle import check_values, settle

PLANNED_TIME = "TIME"  # stands for the start's date and time in a plan that is not started


@dataclass(frozen=True)
class Judged:
    """A run with everything known about it before a folder or a process exists."""

    run: Run
    facts: ModelFacts
    node: NodeFacts
    estimate: MemoryEstimate
    verdict: Verdict
    expectations: Expectations
    fit: tuple[str, ...]  # why training.fit=auto chose what the run holds; empty where it chose nothing now


@dataclass(frozen=True)
class LaunchPlan:
    judged: Judged
    run_dir: RunDir
    command: Command
    files: tuple[tuple[Path, str], ...]  # written into the run folder before the command starts

    @property
    def run(self) -> Run:
        return self.judged.run


def judge_run(composed: Run) -> Judged:
    """Settle a composed run on its node, estimate it and judge it; what training.fit=auto leaves open is chosen.

    Raises:
        ConfigError: for values, pairs of values or a model that cannot work.
        DataError: for data that is not there, or too little.
    """
    return judge_fitted(composed) if composed.training.fit == "auto" else judge_recorded(composed)


def judge_recorded(described: Run) -> Judged:
    """Judge a run that leaves nothing to choose: a recorded one goes on with what was fitted at its start.

    Raises:
        ConfigError, DataError: as judge_run.
    """
    check_values(described)
    node = settle_node(described.node, described.cluster.nodes)
    run = with_attention(with_adapter_folder(with_architecture(settle(described, node.node))))
    refuse_incompatible(run)
    return judged(run, facts_of(run), node, ())


def judge_fitted(composed: Run) -> Judged:
    check_values(composed)
    node = settle_node(composed.node, composed.cluster.nodes)
    run = with_attention(with_adapter_folder(with_architecture(settle(opened(composed), node.node))))
    refuse_incompatible(replace(run, sharding=choice("sharding", "ddp")))  # the given sharding is not kept
    facts, disk = facts_of(run), free_disk(Path(run.output))

    def enforced(candidate: Run) -> Verdict:
        strict = replace(candidate, gate=replace(candidate.gate, mode="enforce"))
        return judge(strict, facts, estimate(candidate, facts), node.gpu_free or None, disk)

    chosen, reasons = fitted(run, facts, enforced, trained_samples(run))
    return judged(chosen, facts, node, reasons)


def facts_of(run: Run) -> ModelFacts:
    assert run.model.architecture is not None
    facts = model_facts(run.model.architecture, run.model.path or f"model={run.model.name}")
    if run.model.init == "pretrained" and run.model.path is not None and is_folder(run.model.path):
        refuse_other_weights(Path(run.model.path).expanduser(), run.model.architecture, facts)
    refuse_too_long(run, facts)
    larger = grown(facts, run)
    refuse_unknown_modules(run, larger)
    return larger


def refuse_too_long(run: Run, facts: ModelFacts) -> None:
    """Beyond its positions a model with learned ones fails, and one with rotary ones answers noise.

    Raises:
        ConfigError: for a cutoff that the model has no positions for.
    """
    if facts.max_positions and run.data.cutoff > facts.max_positions and run.model.rope_scaling is None:
        raise ConfigError(
            f"data.cutoff={run.data.cutoff} is longer than the {facts.max_positions} positions of {run.model.name}. "
            f"Set data.cutoff={facts.max_positions} or less, or stretch rotary positions with model.rope_scaling=yarn, linear or dynamic."
        )


def judged(run: Run, facts: ModelFacts, node: NodeFacts, fit: tuple[str, ...]) -> Judged:
    predicted = estimate(run, facts)
    expected = expect(run, facts, predicted)
    refuse_too_few(run, expected.samples)
    verdict = judge(run, facts, predicted, node.gpu_free or None, free_disk(Path(run.output)), node.gpu_users)
    return Judged(run, facts, node, predicted, verdict, expected, fit)


def free_disk(output: Path) -> int:
    """Free bytes under the output folder, which need not exist yet."""
    # not Path.exists, which raises where a folder may not be searched or a name is too long
    there = next(folder for folder in (output.absolute(), *output.absolute().parents) if os.path.exists(folder))
    return shutil.disk_usage(there).free


def with_architecture(run: Run) -> Run:
    """The architecture that was planned with is recorded, so that a random model is built from exactly that."""
    return replace(run, model=replace(run.model, architecture=read_architecture(run.model)))


def refuse_incompatible(run: Run) -> None:
    refuse_absent(run)
    rules = incompatibilities(run)
    if rules:
        raise ConfigError("\n".join(f"{rule.name}: {rule.why} Instead: {rule.instead}" for rule in rules))


def plan_for(judged: Judged, run_dir: RunDir) -> LaunchPlan:
    """What `train` does with a judged run in that folder."""
    run = judged.run
    files = ((run_dir.accelerate_config, accelerate_config(run)),) if run.backend.name == "accelerate" else ()
    if run.cluster.name != "slurm":
        return LaunchPlan(judged, run_dir, command(run, run_dir), files)
    on_one_node = command(run, run_dir)
    # said again on the node: Slurm takes CUDA_VISIBLE_DEVICES out of the steps of a job that asked for no GPU, so that they would see every GPU
    forced = ("env", *(f"{name}={value}" for name, value in on_one_node.forced))
    script = render(run, run_dir, (*forced, *node_argv(run, run_dir, NODE_RANK, HEAD, PORT)), LAUNCHER)
    withheld = (*on_one_node.withheld, *contradicting_variables(run, run_dir))
    submission = replace(on_one_node, argv=sbatch_argv(run_dir.batch_script), withheld=withheld)
    return LaunchPlan(judged, run_dir, submission, (*files, (run_dir.batch_script, script)))


def new_run_dir(run: Run, time: str) -> RunDir:
    return RunDir(Path(run.output).absolute() / run.name / time)


def plan_as_dict(plan: LaunchPlan, site: dict[str, str]) -> dict[str, Any]:
    """The plan for programs: what `--json` prints and plan.json holds. Sizes are bytes, times seconds."""
    judged = plan.judged
    return {
        "run_folder": str(plan.run_dir.path),
        "run": run_as_dict(judged.run),
        "parameters": judged.facts.parameters,
        "memory": judged.estimate.as_dict(),
        "verdict": judged.verdict.as_dict(),
        "expected": judged.expectations.as_dict(),
        "fit": list(judged.fit),
        "argv": list(plan.command.argv),
        "environment": plan.command.changes(site),
        "files": {str(path): text for path, text in plan.files},
    }
