"""One composed run, settled, estimated and judged on its node."""

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from conf.choices import choice
from conf.exchanges import whole_layers
from conf.hub import is_folder
from conf.ranks import ranks
from conf.schema import Composed, Qlora, Run, Slurm, Zero
from launcher.errors import ConfigError
from launcher.facts.awaited import awaited_run
from launcher.facts.data import refuse_unfit_sets, trained_samples
from launcher.facts.model import ModelFacts, model_facts, refuse_no_model, refuse_other_weights
from launcher.facts.model.grown import grown
from launcher.facts.node import NodeFacts, is_stated, may_be_elsewhere, settle_node
from launcher.facts.output import nearest_folder, refuse_unusable_output
from launcher.gate.background import with_background
from launcher.gate.expectations import Expectations, expect, refuse_too_few
from launcher.gate.left_open import left_open
from launcher.gate.settle import settled
from launcher.gate.verdict import Verdict, judge
from launcher.memory.estimate import MemoryEstimate, estimate
from launcher.rules.adapter import refuse_other_layers
from launcher.rules.hosts import refuse_hosts_values, refuse_no_hosts
from launcher.rules.layer_pairs import NO_RECOMPUTATION, can_recompute
from launcher.rules.libraries import refuse_absent
from launcher.rules.model_limits import passed_over, refuse_beyond_model
from launcher.rules.module_names import refuse_unknown_modules
from launcher.rules.pairs import incompatibilities
from launcher.rules.ranges import check_given, check_values
from launcher.rules.reward_model import refuse_unfit_reward_model
from launcher.rules.rule import Rule
from launcher.rules.slurm import late_end, refuse_slurm_values, stated_memory
from launcher.rules.together import together
from launcher.rules.tokenizer import refuse_unfit_tokenizer
from launcher.rules.unread import Known, unevaluated, unread
from launcher.words import gib


@dataclass(frozen=True)
class Judged:
    """A run with everything known about it before a folder or a process exists."""

    run: Run
    facts: ModelFacts
    node: NodeFacts
    estimate: MemoryEstimate
    verdict: Verdict
    expectations: Expectations
    fit: tuple[str, ...]  # why training.fit chose what the run holds; empty where it chose nothing now
    notes: tuple[str, ...]  # what could not be looked at, what is special about the node, and which given keys have no effect


def judge_run(composed: Composed) -> Judged:
    """Settle a composed run on its node, estimate it and judge it; what it leaves to training.fit is chosen.

    Raises:
        ConfigError: for values, pairs of values or a model that cannot work.
        DataError: for data that is not there, or too little.
    """
    refuse_rewind(composed)
    decided = judge_fitted(composed)
    expected = decided.expectations
    return replace(decided, notes=(*decided.notes, *late_end(decided.run, expected.seconds, expected.latest)))


def refuse_rewind(composed: Composed) -> None:
    check_given(composed, ["checkpoint.resume"])
    if composed.checkpoint.resume != "newest":
        wanted = composed.checkpoint.resume
        raise ConfigError(
            f"checkpoint.resume={wanted}: a new run has no checkpoints. Remove the key, or name the run that has them: "
            f"resume=RUN checkpoint.resume={wanted}."
        )


def judge_recorded(described: Composed) -> Judged:
    """Judge a run that leaves nothing to choose: a recorded one goes on with what was fitted at its start.

    Raises:
        ConfigError, DataError: as judge_run.
    """
    if described.training.gradient_checkpointing == "auto":
        raise ConfigError(
            "training.gradient_checkpointing=auto chooses the layers at the start of a run, and this one has begun. "
            "Set it to true, false or a number."
        )
    node = node_of(described)
    return judge_settled(settled(described, node.node), node)


def judge_settled(run: Run, node: NodeFacts) -> Judged:
    refuse_incompatible(run)
    return judged(run, facts_of(run), node, ())


def judge_fitted(composed: Composed) -> Judged:
    node = node_of(composed)
    left = left_open(composed, node.node.gpus)
    run = settled(composed, node.node)
    if left is None:
        return judge_settled(run, node)
    from launcher.gate.fit import fitted

    refuse_incompatible(replace(run, sharding=choice("sharding", "ddp")) if left.sharding else run)  # a sharding that is chosen need not work
    facts, disk = facts_of(run), disk_of(run, node)

    def enforced(candidate: Run) -> Verdict:
        strict = replace(candidate, gate=replace(candidate.gate, mode="enforce"))
        return judge(strict, facts, estimate(candidate, facts), node.gpu_free or None, disk)

    chosen, reasons = fitted(run, facts, enforced, trained_samples(run), left)
    return judged(chosen, facts, node, reasons)


def node_of(composed: Composed) -> NodeFacts:
    """What every run is judged on, after its single values have been looked at."""
    refuse_no_hosts(composed)
    together(partial(check_values, composed), partial(refuse_slurm_values, composed), partial(refuse_hosts_values, composed))
    return place_of(composed)


def place_of(described: Composed) -> NodeFacts:
    """The node of the run. A Slurm job has no more host memory than it states (cluster.memory)."""
    cluster, node = described.cluster, described.node
    limit = stated_memory(cluster) if isinstance(cluster, Slurm) else None
    if limit is not None:
        node = replace(node, host_memory=limit if node.host_memory is None else min(limit, node.host_memory))
    if isinstance(cluster, Slurm) and node.auto and not is_stated(node):
        from launcher.facts.partition import settle_in_partition  # a plan for a named node asks no command

        return settle_in_partition(node, cluster, os.environ, limit)
    return settle_node(node, cluster.nodes, queued=isinstance(cluster, Slurm))


def facts_of(run: Run) -> ModelFacts:
    facts = model_facts(run.model.architecture, run.model.path or f"model={run.model.name}")
    base = base_folder(run)
    if base is not None and (base.exists() or not may_be_elsewhere(run)) and awaited_run(run, run.model.path) is None:
        refuse_no_model(str(run.model.path))
        refuse_other_weights(base, run.model.architecture, facts)
    refuse_too_long(run, facts)
    larger = grown(facts, run)
    refuse_unknown_modules(run, larger)
    refuse_other_layers(run, larger)
    refuse_beyond_model(run, larger)
    return larger


def base_folder(run: Run) -> Path | None:
    """The folder of the weights that a run loads; None where they are on the hub or made at random."""
    path = run.model.path
    return Path(path).expanduser() if run.model.init == "pretrained" and path is not None and is_folder(path) else None


def refuse_too_long(run: Composed, facts: ModelFacts) -> None:
    """Beyond its positions a model with learned positions fails, and one with rotary positions outputs noise.

    Raises:
        ConfigError: for a cutoff that the model has no positions for.
    """
    if facts.max_positions and run.data.cutoff > facts.max_positions and run.model.rope_scaling is None:
        raise ConfigError(
            f"data.cutoff={run.data.cutoff} is longer than the {facts.max_positions} positions of {run.model.name}. "
            f"Set data.cutoff={facts.max_positions} or less, or stretch rotary positions with model.rope_scaling=yarn, linear or dynamic."
        )


def judged(run: Run, facts: ModelFacts, node: NodeFacts, fit: tuple[str, ...]) -> Judged:
    refuse_unusable_output(run)
    refuse_unfit_sets(run)
    refuse_unfit_reward_model(run)
    notes = refuse_unfit_tokenizer(run, facts.vocab)
    run = with_background(run, facts)
    predicted = estimate(run, facts)
    expected = expect(run, facts, predicted)
    refuse_too_few(run, expected.samples)
    disk = disk_of(run, node)
    verdict = judge(run, facts, predicted, node.gpu_free or None, disk, node.gpu_users)
    if disk is None:
        note = (
            f"node={run.node.name} is not this machine, so its disk is not judged. The run needs {gib(predicted.disk)} in output={run.output} there."
        )
        node = replace(node, notes=(*node.notes, note))
    special = (
        *dequantised_base(run),
        *rounded_products(run),
        *absent_base(run),
        *passed_over(run, facts),
        *(() if fit else kept_activations(run)),
        *whole_exchanges(run),
    )
    return Judged(run, facts, node, predicted, verdict, expected, fit, (*node.notes, *special, *notes))


def with_unread(decided: Judged, described: Composed, given: Mapping[str, str]) -> Judged:
    """The same with a note for each key of `given` (with its value as written) that the run does not read."""
    known = Known(described, decided.run, decided.expectations.steps, decided.node.here)
    return replace(decided, notes=(*decided.notes, *unread(given, known), *unevaluated(known)))


def dequantised_base(run: Run) -> tuple[str, ...]:
    if not (isinstance(run.regime, Qlora) and run.regime.dequantised):
        return ()
    return (
        f"regime.dequantised=true: the base has the values of its {run.regime.bits} bits, and takes the memory of 16-bit weights, as in regime=lora.",
    )


def rounded_products(run: Run) -> tuple[str, ...]:
    if not run.training.fp8:
        return ()
    return ("training.fp8=true: products of frozen matrices are rounded to 8 bits, so losses differ a little from those without it.",)


def whole_exchanges(run: Run) -> tuple[str, ...]:
    if ranks(run) == 1 or not isinstance(run.sharding, Zero) or run.sharding.whole_layers is not None or not whole_layers(run):
        return ()
    return (
        f"sharding={run.sharding.name} exchanges whole layers, two ahead: faster, in a little more memory. sharding.whole_layers=false does not.",
    )


def kept_activations(run: Run) -> tuple[str, ...]:
    return () if can_recompute(run.model.architecture) else (f"training.gradient_checkpointing=false: {NO_RECOMPUTATION}.",)


def absent_base(run: Run) -> tuple[str, ...]:
    base = base_folder(run)
    absent = base is not None and not base.exists()
    if awaited_run(run, run.model.path) is not None:
        return (f"model.path={run.model.path} will be written by the run that this one waits for (cluster.after), and is planned from its run.yaml.",)
    return (f"model.path={run.model.path} is not on this machine, so its files were not looked at.",) if absent else ()


def disk_of(run: Run, node: NodeFacts) -> int | None:
    """Free bytes where the run folder would be; None for another machine's disk. Nodes of Slurm and of cluster=hosts share the disk of this one."""
    return free_disk(Path(run.output)) if node.here or run.cluster.name != "local" else None


def free_disk(output: Path) -> int:
    """Free bytes under the output folder, which need not exist yet."""
    return shutil.disk_usage(nearest_folder(output)).free


def refuse_incompatible(run: Run) -> None:
    refuse_absent(run)
    rules = incompatibilities(run)
    if rules:
        raise ConfigError("\n".join(f"{at_fault(run, rule)} does not work in this run. {rule.why} Set {rule.instead}." for rule in rules))


def at_fault(run: Run, rule: Rule) -> str:
    """What the run says where the rule says something else; a message begins with it. What only another choice of the group has, it does not say."""
    from launcher.gate.changes import as_override  # only a refusal needs it

    said = []
    for override in rule.instead.split():
        key, _, instead = override.partition("=")
        group, _, field = key.partition(".")
        there = vars(getattr(run, group))
        value = as_override(there[field or "name"]) if (field or "name") in there else instead
        said += [f"{key}={value}"] if value != instead else []
    return " with ".join(said) or rule.instead
