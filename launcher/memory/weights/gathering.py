"""Whole weights that ranks gather from their shares, and for how long they stay (DeepSpeed 0.19.8; torch fully_shard)."""

from conf.buckets import zero_bucket
from conf.exchanges import reshards, whole_layers
from conf.regimes import regime_row
from conf.schema import Fsdp, Qlora, Run, Zero
from launcher.facts.model import ModelFacts
from launcher.memory.constants import MAX_LIVE
from launcher.memory.stages import repeats_its_passes
from launcher.memory.weights.dtypes import Storage
from launcher.memory.weights.parameters import Census, quantised_bytes
from launcher.memory.weights.split import Split, base_element, largest_layer


def gathered_bytes(run: Run, facts: ModelFacts, census: Census, storage: Storage, split: Split) -> int:
    """Whole weights that a rank holds around the loss."""
    element = base_element(run, census, storage)
    if isinstance(run.sharding, Fsdp) and split.ranks == 1:
        # The tail too comes as a copy of its one share (results/speed/h200x2_scaling.jsonl, 1b-full/1/fsdp2).
        return storage.compute * facts.vocab * facts.hidden
    if isinstance(run.sharding, Fsdp):
        # The tail, and the piece in which the last group came, until the forward pass returns: the tail's own, or with a tied embedding, which is
        # gathered first of all, the last layer's (torch/distributed/fsdp/_fully_shard/_fsdp_param_group.py, wait_for_unshard).
        tail = storage.compute * facts.vocab * facts.hidden
        piece = block_bytes(run, facts, census, storage, split) if facts.tied else tail
        return tail + piece if reshards(run.sharding) else int(element * census.base)
    if isinstance(run.sharding, Zero) and run.sharding.stage == 3 and not holds_shares_alone(run, split):
        return storage.compute * reused_soon(run, facts, census) if repeats_its_passes(run) else 0
    return 0


def holds_shares_alone(run: Run, split: Split) -> bool:
    """ZeRO-3 on one rank: a gathered weight is a view of its one share, unless that is on the host (runtime/zero/partition_parameters.py,
    NoGatherHandle)."""
    return isinstance(run.sharding, Zero) and split.ranks == 1 and not split.host_weights


def frees_at_once(run: Run) -> bool:
    """ZeRO-3 where it foresees nothing: a module's weights are whole while it runs, and no longer."""
    return isinstance(run.sharding, Zero) and run.sharding.stage == 3 and not repeats_its_passes(run)


def by_layers(run: Run) -> bool:
    """ZeRO-3 that gathers and reduces a layer at once."""
    return whole_layers(run)


def reused_soon(run: Run, facts: ModelFacts, census: Census) -> int:
    """Elements in 16 bits that ZeRO-3 keeps whole at the loss: the head, and from the last layer down every module whose way to the loss is shorter
    than stage3_max_reuse_distance (runtime/zero/partitioned_parameter_coordinator.py, __params_to_release; quantised: see whole_quantised)."""
    if regime_row(run.regime.name).quantised:
        return facts.vocab * facts.hidden + census.adapters
    kept = facts.vocab * facts.hidden
    for number in reversed(range(facts.layers - census.depth, facts.layers)):  # no backward pass goes through those below
        modules = [module.parameters for module in reversed(facts.modules) if number in module.layers]
        for gathered in [sum(modules)] if by_layers(run) else modules:
            if kept >= MAX_LIVE:
                return kept
            kept += gathered
    below = facts.tied or census.depth < facts.layers
    return kept if below or kept >= MAX_LIVE else kept + facts.vocab * facts.hidden


def whole_quantised(run: Run, census: Census, split: Split) -> int:
    """Measured on 2 GPUs: under ZeRO-3 quantised weights stay whole once they were gathered, beside their partition; their scales, which are no
    parameters, are never split."""
    if not (isinstance(run.regime, Qlora) and isinstance(run.sharding, Zero) and run.sharding.stage == 3):
        return 0
    packed = census.quantised * run.regime.bits // 8
    return packed + (quantised_bytes(run.regime, census) - packed) * (split.ranks - 1) // split.ranks


def block_bytes(run: Run, facts: ModelFacts, census: Census, storage: Storage, split: Split) -> int:
    """FSDP2 gathers the block whose layer runs."""
    if not isinstance(run.sharding, Fsdp) or split.ranks == 1 or not reshards(run.sharding):
        return 0
    return int(base_element(run, census, storage) * largest_layer(facts))


def root_bytes(run: Run, facts: ModelFacts, census: Census, storage: Storage, split: Split) -> int:
    """FSDP2 reduces the gradients of embedding and head last: whole, and once more as one piece. The head's whole one waits since the loss."""
    if not isinstance(run.sharding, Fsdp) or split.ranks == 1:
        return 0
    return storage.compute * (2 * census.embedding + (0 if facts.tied else census.head))


def persistent_bytes(run: Run, facts: ModelFacts, census: Census, storage: Storage, split: Split) -> int:
    """Norms and biases: ZeRO-3 never splits tensors below ten widths (transformers' stage3_param_persistence_threshold=auto), and its one bucket
    (stage3.py, __ipg_bucket_flat_buffer), which transformers' reduce_bucket_size=auto makes as large as the width squared, and
    trainers/arguments.py as large as what learns of a layer. ZeRO-1 and 2 with offload: one gradient on its way to the host."""
    if not isinstance(run.sharding, Zero):
        return 0
    if run.sharding.stage != 3:
        return storage.gradient * census.largest if split.host_states else 0  # stage_1_and_2.py, temp_grad_buffer_for_gpu_offload
    bucket = census.layer if by_layers(run) else facts.hidden**2
    return storage.compute * census.small_base + storage.gradient * bucket


def reduction_bytes(run: Run, facts: ModelFacts, census: Census, storage: Storage, split: Split) -> int:
    """Buffers of the backward pass."""
    if isinstance(run.sharding, Zero):
        whole_gradient = storage.gradient * census.largest
        if run.sharding.stage == 3:
            return max(whole_gradient, storage.gradient * census.layer) if by_layers(run) else whole_gradient
        # stage_1_and_2.py, ipg_buckets: two on a GPU, where reduction overlaps. A gradient larger than a bucket is reduced where it is; with
        # offloading as a copy (reduce_independent_p_g_buckets_and_remove_grads).
        bucket = zero_bucket(census.trained)
        copied = whole_gradient if split.host_states and census.largest > bucket else 0
        return storage.gradient * bucket * (2 if run.node.gpus else 1) + copied
    if isinstance(run.sharding, Fsdp) and split.ranks > 1:
        return storage.compute * census.head + block_bytes(run, facts, census, storage, split)  # the head's gradient is whole until the end
    return 0
