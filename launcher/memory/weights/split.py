"""What ranks split, and the buffers that gathering and reducing cost (arXiv:1910.02054; DeepSpeed 0.19.8; torch fully_shard)."""

from dataclasses import dataclass

from conf.ranks import ranks
from conf.schema import Qlora, Run, Zero
from conf.shardings import sharding_row
from launcher.facts.model import ModelFacts
from launcher.memory.constants import SUB_GROUP
from launcher.memory.weights.dtypes import Storage
from launcher.memory.weights.parameters import Census, quantised_bytes


@dataclass(frozen=True)
class Split:
    """Over how many ranks each kind of bytes is divided; 1: every rank holds all."""

    ranks: int
    weights: int
    gradients: int
    states: int
    host_states: bool
    host_weights: bool


def split_of(run: Run) -> Split:
    count, row, gpu = ranks(run), sharding_row(run.sharding.name), run.node.gpus != 0
    return Split(
        count,
        weights=count if "weights" in row.splits else 1,
        gradients=count if "states" in row.splits else 1,  # whatever splits states leaves each rank its share when a step is over, ZeRO-1 too
        states=count if "states" in row.splits else 1,
        # on a CPU node host memory is the device: nothing leaves it
        host_states=row.offloads and gpu,
        host_weights=isinstance(run.sharding, Zero) and run.sharding.offload_params and gpu,
    )


def shards_weights(split: Split) -> bool:
    return split.weights > 1 or split.host_weights


def base_element(run: Run, census: Census, storage: Storage) -> float:
    """Mean bytes of a gathered base weight."""
    if not isinstance(run.regime, Qlora):
        return storage.compute
    return (quantised_bytes(run.regime, census) + storage.frozen * (census.base - census.quantised)) / census.base


def partition_step_bytes(run: Run, census: Census, storage: Storage, split: Split) -> int:
    """DeepSpeed flattens its partition of the gradients and copies it to the masters' dtype; ZeRO-3 does so by sub-groups."""
    if not isinstance(run.sharding, Zero) or split.host_states:
        return 0
    elements = census.trained // split.states
    if run.sharding.stage == 3:
        elements = min(elements, SUB_GROUP)
    return elements * (storage.gradient + (storage.master if storage.master != storage.gradient else 0))


def largest_layer(facts: ModelFacts) -> int:
    return max(facts.layer_parameters(number) for number in (0, facts.layers - 1))
