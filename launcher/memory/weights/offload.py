"""What DeepSpeed 0.19.8 keeps on the host of one rank where it offloads: met two H200s within 3 % (results/memory/h200x2_from_files.jsonl).

The kernel counts pinned blocks as shared memory of the process.
"""

from conf.shardings import sharding_row
from launcher.memory.constants import SUB_GROUP
from launcher.memory.job import Job
from launcher.memory.terms import Term, Terms
from launcher.memory.weights.optimizer import state_bytes
from launcher.memory.weights.parameters import places

PINNED = "pinned blocks are rounded up to powers of two"


def pinned(size: int) -> int:
    """A pinned block as torch's caching host allocator takes it: rounded up to a power of two (ATen/core/CachingHostAllocator.h)."""
    return 1 << (size - 1).bit_length() if size > 0 else 0


def pinned_in_groups(element: int, elements: int) -> int:
    """ZeRO-3 gives every sub-group a block of its own (runtime/zero/stage3.py, initialize_optimizer_states)."""
    whole, rest = divmod(elements, SUB_GROUP)
    return whole * pinned(element * SUB_GROUP) + pinned(element * rest)


def offload_terms(job: Job) -> Terms:
    if not job.split.host_states:
        return ()
    terms = stage3_terms(job) if "weights" in sharding_row(job.run.sharding.name).splits else stage2_terms(job)
    states = state_bytes(job.run, job.census, job.storage) // job.split.states
    return tuple(
        term for term in (Term("offloaded states", states, "DeepSpeedCPUAdam's, ordinary memory"), *terms, *parameter_terms(job)) if term.bytes
    )


def stage2_terms(job: Job) -> Terms:
    """runtime/zero/stage_1_and_2.py: weights_partition, the gradients of initialize_optimizer_states, temp_buffer_bit16, and one whole gradient."""
    storage, part = job.storage, job.census.trained // job.split.states
    return (
        Term("offloaded masters", pinned(storage.master * part), PINNED),
        Term("offloaded gradients", pinned(storage.master * part), f"in the masters' dtype; {PINNED}"),
        Term(
            "staging", pinned(storage.weight * part) + pinned(storage.weight * job.census.largest), f"of updated weights, and of a gradient; {PINNED}"
        ),
    )


def stage3_terms(job: Job) -> Terms:
    """runtime/zero/stage3.py: fp32_partitioned_groups_flat is cloned and not pinned; its gradients and grad_partitions_flat_buffer are."""
    storage, part = job.storage, job.census.trained // job.split.states
    return (
        Term("offloaded masters", storage.master * part, "ordinary memory"),
        Term("offloaded gradients", pinned_in_groups(storage.master, part) + pinned(storage.gradient * part), f"in both dtypes; {PINNED}"),
    )


def parameter_terms(job: Job) -> Terms:
    """Each part is pinned by itself when it is made (partition_parameters.py); what learns then moves into one block, and torch keeps the first."""
    if not job.split.host_weights:
        return ()
    element, ranks = job.storage.weight, job.split.weights
    parts = sum(pinned(element * module.parameters // ranks) * len(places(module)) for module in job.facts.modules)
    flat = pinned(element * job.census.trained // ranks)
    return (Term("offloaded weights", parts + flat, f"one by one, and what learns in one piece; {PINNED}"),)
