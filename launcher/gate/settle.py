"""A composed run becomes a settled one: everything that it leaves open is filled. What comes out is what run.yaml records."""

import os
from dataclasses import replace
from typing import Any

from conf.evaluations import with_ends
from conf.run_values import as_settled
from conf.schema import Cluster, Composed, Model, Run, SettledNode, Training
from launcher.errors import ConfigError
from launcher.facts.awaited import architecture_left, awaited_run
from launcher.facts.model import read_architecture
from launcher.rules.adapter import with_adapter_folder
from launcher.rules.attention import chosen_attention
from launcher.rules.layer_pairs import can_recompute
from launcher.rules.rewards import check_groups

CPU_RANKS = 2  # a CPU node rehearses what several GPUs would do
UNDECIDED = "eager"  # any run can compute with it, until a faster one is chosen


def settled(composed: Composed, node: SettledNode) -> Run:
    """The run on `node` with nothing left open. A settled run comes out as it went in.

    Raises:
        ConfigError: when ranks, GPUs, nodes and batch sizes contradict each other, or the architecture or the adapter cannot be read.
    """
    cluster = with_ranks(composed.cluster, node)
    # The architecture that was planned with is recorded, so that a random model is built from exactly that.
    architecture = architecture_of(composed)
    model = replace(at_home(composed.model), architecture=architecture)
    training = with_batch(unfitted(composed.training, can_recompute(architecture)), cluster.nodes * ranks_on(cluster, node))
    given = training.attention
    described = replace(
        composed,
        node=node,
        cluster=cluster,
        model=model,
        training=replace(training, attention=given or UNDECIDED),
        evaluation=with_ends(composed.evaluation),
    )
    run = with_adapter_folder(as_settled(described))
    check_groups(run)
    return run if given is not None else replace(run, training=replace(run.training, attention=chosen_attention(run)))


def architecture_of(composed: Composed) -> dict[str, Any]:
    """Of the model's files, or of the run that will have written them when the job starts."""
    model = composed.model
    awaited = awaited_run(composed, model.path) if model.architecture is None else None
    return read_architecture(model) if awaited is None else architecture_left(str(model.path), awaited)


def at_home(model: Model) -> Model:
    """`~` stands for the home folder to a shell and to us, but not to the libraries of the ranks."""
    path, tokenizer = (given if given is None else os.path.expanduser(given) for given in (model.path, model.tokenizer))
    return replace(model, path=path, tokenizer=tokenizer)


def ranks_on(cluster: Cluster, node: SettledNode) -> int:
    """Of one node: as many as are stated, else one for each GPU."""
    if cluster.ranks_per_node is not None:
        return cluster.ranks_per_node
    return node.gpus if node.gpus > 0 else CPU_RANKS


def with_ranks(cluster: Cluster, node: SettledNode) -> Cluster:
    ranks = ranks_on(cluster, node)
    if node.gpus and ranks > node.gpus:
        raise ConfigError(
            f"cluster.ranks_per_node={ranks}, but node {node.name} has {node.gpus} GPU{'s' * (node.gpus > 1)}. "
            f"Set cluster.ranks_per_node={node.gpus} or less, or choose another node."
        )
    return replace(cluster, ranks_per_node=ranks)


def unfitted(training: Training, recomputes: bool) -> Training:
    """What launcher/gate/fit.py chooses where it is asked to. Here samples pass one by one, activations are computed again where the family can, and
    the libraries' own operations compute, unless training.fp8 needs others."""
    kernels = "fused" if training.fp8 else "plain"
    defaults: dict[str, Any] = {"micro_batch": 1, "gradient_checkpointing": recomputes, "loss": "plain", "kernels": kernels}
    return replace(training, **{key: value for key, value in defaults.items() if getattr(training, key) in (None, "auto")})


def with_batch(training: Training, ranks: int) -> Training:
    micro_batch = training.micro_batch or 1
    one_pass = micro_batch * ranks
    if training.effective_batch is None:
        accumulation = 1 if training.accumulation is None else training.accumulation
        return replace(training, accumulation=accumulation, effective_batch=one_pass * accumulation)
    if training.accumulation is not None and training.accumulation * one_pass != training.effective_batch:
        raise ConfigError(
            f"training.effective_batch={training.effective_batch} is not micro_batch {micro_batch} x {ranks} ranks x "
            f"accumulation {training.accumulation}. Leave training.accumulation out, and it is computed."
        )
    if training.effective_batch % one_pass:
        raise ConfigError(
            f"training.effective_batch={training.effective_batch} is not a multiple of micro_batch {micro_batch} x {ranks} ranks. "
            f"Use {max(1, training.effective_batch // one_pass) * one_pass}{', or another training.micro_batch' * (micro_batch > 1)}."
        )
    return replace(training, accumulation=training.effective_batch // one_pass)
