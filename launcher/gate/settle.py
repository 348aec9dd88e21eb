"""Checks a run's values and fills what it leaves open: ranks, accumulation, batch. What comes out is what run.yaml records."""

from dataclasses import replace

from conf.schema import Cluster, Node, Run, Training
from launcher.errors import ConfigError
from launcher.rules.rewards import check_groups

CPU_RANKS = 2  # a CPU node rehearses what several GPUs would do


def settle(run: Run, node: Node) -> Run:
    """The run on `node` with nothing left open; `node` has its GPU count filled.

    Raises:
        ConfigError: when ranks, GPUs, nodes and batch sizes contradict each other.
    """
    cluster = settle_cluster(run.cluster, node)
    training = settle_batch(run.training, cluster.nodes * (cluster.ranks_per_node or 1))
    settled = replace(run, node=node, cluster=cluster, training=training)
    check_groups(settled)
    return settled


def settle_cluster(cluster: Cluster, node: Node) -> Cluster:
    ranks = cluster.ranks_per_node or node.gpus or CPU_RANKS
    if node.gpus and ranks > node.gpus:
        raise ConfigError(
            f"cluster.ranks_per_node={ranks}, but node {node.name} has {node.gpus} GPU{'s' * (node.gpus > 1)}: "
            f"set cluster.ranks_per_node={node.gpus} or less, or state another node."
        )
    return replace(cluster, ranks_per_node=ranks)


def settle_batch(training: Training, ranks: int) -> Training:
    one_pass = training.micro_batch * ranks
    if training.effective_batch is None:
        accumulation = training.accumulation or 1
        return replace(training, accumulation=accumulation, effective_batch=one_pass * accumulation)
    if training.accumulation is not None and training.accumulation * one_pass != training.effective_batch:
        raise ConfigError(
            f"training.effective_batch={training.effective_batch} is not micro_batch {training.micro_batch} x {ranks} ranks x "
            f"accumulation {training.accumulation}: leave training.accumulation out, and it is chosen."
        )
    if training.effective_batch % one_pass:
        raise ConfigError(
            f"training.effective_batch={training.effective_batch} is no multiple of micro_batch {training.micro_batch} x {ranks} ranks: "
            f"use {max(1, training.effective_batch // one_pass) * one_pass}{', or another training.micro_batch' * (training.micro_batch > 1)}."
        )
    return replace(training, accumulation=training.effective_batch // one_pass)
