"""Bytes that a rank's GPU exchanges in a step: with other GPUs, and with host memory where that holds a part.

A ring passes (n - 1) / n of what it reduces or gathers through every rank, so through every node too (NCCL; arXiv:1910.02054, section 7).
"""

from dataclasses import dataclass

from conf.exchanges import reshards, whole_layers
from conf.schema import Fsdp, Lora, Zero
from conf.shardings import sharding_row
from launcher.memory.weights.optimizer import state_bytes
from launcher.memory.weights.parameters import adapter_targets, places
from launcher.memory.weights.split import Split, base_element, split_of
from launcher.timing.work import Work

# Share of a link's stated rate. Two H200 over NVLink: DDP's reduction of the 2.47 GB of gradients of a 1B model made its step 13 ms longer
# (benchmarks/results: 94 % of one GPU's rate): what does not overlap, and what the backward pass loses to it.
LINK_SHARE = 0.42
# Bytes a second of a node's host memory in the CPU's optimizer step: two thirds of eight channels of DDR5-4800. Not measured.
HOST_MEMORY = 200e9


@dataclass(frozen=True)
class Exchange:
    """Bytes of one rank in one optimizer step."""

    gathered: float
    reduced: float
    offloaded: float  # over PCIe
    on_host: float  # read and written by the optimizer of the whole node on the CPU


def exchange_of(work: Work) -> Exchange:
    run, split = work.run, split_of(work.run)
    through = (split.ranks - 1) / split.ranks
    passes = run.training.accumulation
    gradients = work.census.trained * (work.storage.compute if isinstance(run.sharding, Fsdp) else work.storage.gradient)
    splits = sharding_row(run.sharding.name).splits
    if not splits:
        return Exchange(0, 2 * through * gradients, 0, 0)
    if "weights" in splits:
        whole = base_element(run, work.census, work.storage) * work.census.base + work.storage.compute * work.census.adapters
        gathered = passes * gathers(work) * whole * through
        reduced = passes * through * gradients
    else:
        gathered = through * work.storage.weight * work.census.trained
        reduced = through * gradients * (passes if "gradients" in splits else 1)
    return Exchange(gathered, reduced, offloaded_bytes(work, split), host_bytes(work, split))


def gathers(work: Work) -> float:
    """Of all weights in one micro-batch: before each forward pass and, where they were freed again, before the backward pass."""
    sharding = work.run.sharding
    kept = isinstance(sharding, Fsdp) and not reshards(sharding)
    return 1 + work.forwards + (0 if kept else 1)


def offloaded_bytes(work: Work, split: Split) -> float:
    """Gradients of what the rank updates to host memory, and updated weights back; its share of offloaded weights before each gather."""
    if not split.host_states:
        return 0
    own = work.census.trained / split.states * (work.storage.gradient + work.storage.weight)
    weights = work.storage.weight * work.census.base / split.weights * gathers(work) if split.host_weights else 0
    return work.run.training.accumulation * weights + own


def host_bytes(work: Work, split: Split) -> float:
    """The CPU's optimizer reads gradients, and reads and writes masters and states."""
    if not split.host_states:
        return 0
    states = 2 * state_bytes(work.run, work.census, work.storage) / split.states
    own = work.census.trained / split.states * 3 * max(work.storage.master, work.storage.weight)
    return (states + own) * work.run.cluster.ranks_per_node


# Seconds of the host in each micro-batch for one weight that DeepSpeed gathers, while the GPU works: what two H200s took longer for a 1B llama at
# 4 x 2048 tokens, 322 ms a step instead of 206, as far as its exchanges do not explain it. By whole layers: half of it, as on two CPU ranks; a guess.
GATHERED_MODULE, GATHERED_LAYER = 1.3e-3, 6.5e-4


def gathering_host(work: Work) -> float:
    """Seconds of one micro-batch in which the host gathers and frees weights, and reduces their gradients, by DeepSpeed's Python."""
    sharding = work.run.sharding
    if not isinstance(sharding, Zero) or sharding.stage != 3:
        return 0.0
    return hooked_tensors(work) * (GATHERED_LAYER if whole_layers(work.run) else GATHERED_MODULE)


def hooked_tensors(work: Work) -> int:
    """Tensors around which an engine's Python runs in each micro-batch: those that it splits, or whose gradients it gathers into buckets."""
    regime, everything = work.run.regime, sum(len(places(module)) for module in work.facts.modules if module.parameters)
    if not isinstance(regime, Lora):
        return everything
    adapters = 2 * sum(module.instances for module in adapter_targets(regime, work.facts))
    return adapters + everything if "weights" in sharding_row(work.run.sharding.name).splits else adapters
