"""Weights, states, gradients and their buffers, as terms of a phase."""

from conf.buckets import zero_bucket
from conf.kernels import FP8_MULTIPLE
from conf.schema import Ddp, Fsdp, Lora, Qlora, Zero
from launcher.facts.model import ModuleKind
from launcher.memory import constants
from launcher.memory.job import Job
from launcher.memory.terms import Term, Terms, total
from launcher.memory.weights.dtypes import loaded_element
from launcher.memory.weights.gathering import by_layers, frees_at_once, gathered_bytes, persistent_bytes, reduction_bytes, root_bytes, whole_quantised
from launcher.memory.weights.optimizer import is_paged, state_bytes, step_bytes, unpaged_bytes
from launcher.memory.weights.parameters import HQQ_BITS, adapter_targets, packed_experts, quantised_bytes, weight_bytes
from launcher.memory.weights.split import largest_layer, partition_step_bytes, shards_weights
from launcher.words import plural

WHOLE_QUANTISED = "quantised weights, whole"


def resident_terms(job: Job) -> Terms:
    storage, split, census = job.storage, job.split, job.census
    weights = 0 if split.host_weights else weight_bytes(job.run, census, storage) // split.weights
    optimizer = 0 if split.host_states else 1
    states = unpaged_bytes(job.run, census) if is_paged(job.run) else state_bytes(job.run, census, storage)
    return tuple(
        term
        for term in (
            Term("weights", weights, f"{storage.weight} B per trained, {storage.frozen} B per frozen weight, over {plural(split.weights, 'rank')}"),
            Term(
                "weights that are not split",
                persistent_bytes(job.run, job.facts, census, storage, split),
                "norms, biases, a bucket; offload: one gradient",
            ),
            Term("master weights", optimizer * storage.master * census.trained // split.states, f"DeepSpeed, over {plural(split.states, 'rank')}"),
            Term("optimizer states", optimizer * states // split.states, f"{job.run.optim.name}, over {plural(split.states, 'rank')}"),
            Term("gradient partition", flat_gradient_bytes(job), "ZeRO-3 allocates it at the start (stage3.py, grad_partitions_flat_buffer)"),
            Term("gradient buckets", bucket_bytes(job), "DDP: gradients are views into them (torch/csrc/distributed/c10d/reducer.cpp)"),
            Term(WHOLE_QUANTISED, whole_quantised(job.run, census, split), "ZeRO-3 gives none back before the end; measured on two H200"),
            Term("adapters as they are computed with", cast_adapters(job), "in 16 bits, scaled (trainers/kernels/lora.py, Casts)"),
            Term("buffer for a dequantised matrix", dequantised_buffer(job), "used again by every layer (trainers/kernels/bases.py, Buffer)"),
            Term("buffer for an 8-bit matrix", fp8_buffer(job), "used again by every layer (trainers/kernels/fp8.py)"),
            Term("scales of 8-bit matrices", fp8_scales(job), "fp32, one for each column (trainers/kernels/fp8.py)"),
            Term("cuBLAS workspace", workspace(job), "32 MiB a thread on Hopper (ATen/cuda/CublasHandlePool.cpp)"),
        )
        if term.bytes
    )


def workspace(job: Job) -> int:
    """The fused kernels' backward pass runs in the thread of the forward pass (trainers/kernels/stepping.py)."""
    return constants.CUBLAS_WORKSPACE * (1 if job.run.training.kernels == "fused" else 2) if job.gpu else 0


def cast_adapters(job: Job) -> int:
    return job.storage.compute * job.census.adapters if job.arithmetic.fused else 0


def dequantised_buffer(job: Job) -> int:
    if not (job.arithmetic.fused and isinstance(job.run.regime, Qlora)):
        return 0
    return job.storage.compute * max((module.inputs * module.outputs for module in adapter_targets(job.run.regime, job.facts)), default=0)


def fp8_matrices(job: Job) -> list[ModuleKind]:
    """Kinds of frozen matrices whose products are made in 8-bit floating point."""
    regime = job.run.regime
    if not (job.run.training.fp8 and job.arithmetic.fused and isinstance(regime, Lora)):
        return []
    return [each for each in adapter_targets(regime, job.facts) if each.inputs % FP8_MULTIPLE == 0 and each.outputs % FP8_MULTIPLE == 0]


def fp8_buffer(job: Job) -> int:
    return max((each.inputs * each.outputs for each in fp8_matrices(job)), default=0)


def fp8_scales(job: Job) -> int:
    return 4 * sum(each.inputs * each.instances for each in fp8_matrices(job))


def flat_gradients(job: Job) -> bool:
    return isinstance(job.run.sharding, Zero) and job.run.sharding.stage == 3


def flat_gradient_bytes(job: Job) -> int:
    return job.storage.gradient * job.census.trained // job.split.gradients if flat_gradients(job) and not job.split.host_states else 0


def bucket_bytes(job: Job) -> int:
    return job.storage.gradient * job.census.trained if views_buckets(job) else 0


def views_buckets(job: Job) -> bool:
    """DDP copies each gradient into its bucket as soon as it is made, and lets the gradient be a view of it (gradient_as_bucket_view)."""
    return isinstance(job.run.sharding, Ddp) and job.split.ranks > 1


def gathered_terms(job: Job) -> Terms:
    size = gathered_bytes(job.run, job.facts, job.census, job.storage, job.split)
    return (Term("gathered weights", size, "whole weights around the loss"),) if size else ()


def module_terms(job: Job, elements: int) -> Terms:
    """Weights of the module whose backward pass runs, where nothing else is whole."""
    whole = max(elements, largest_layer(job.facts)) if by_layers(job.run) else elements
    return (Term("gathered weights", job.storage.compute * whole, "of this module alone"),) if frees_at_once(job.run) else ()


def load_terms(job: Job) -> Terms:
    weights = 0 if job.split.host_weights else weight_bytes(job.run, job.census, job.storage) // job.split.weights
    if job.run.model.init == "random" and job.whole and not shards_weights(job.split):
        weights = max(weights, loaded_element(job.run) * job.census.base)
    loaded = Term("weights", weights, "as they are loaded, or made at random where they train")
    drawn = (
        Term("weights", drawn_bytes(job), "before what learns is made fp32, or has adapters"),
        *untied_head_terms(job),
        *quantised_matrix_terms(job),
    )
    return (*max((loaded, *flat_copy_terms(job)), drawn, key=total), *whole_tensor_terms(job))


def drawn_bytes(job: Job) -> int:
    """The base alone, as it comes from its files or is drawn; split, or on the host, at once where weights are."""
    if shards_weights(job.split):
        return 0
    quantised = quantised_bytes(job.run.regime, job.census) if isinstance(job.run.regime, Qlora) else 0
    return quantised + loaded_element(job.run) * (job.census.base - job.census.quantised)


def flat_copy_terms(job: Job) -> Terms:
    """DeepSpeed's ZeRO-1 and 2 put what learns into one piece (stage_1_and_2.py, flatten_dense_tensors_aligned)."""
    if not job.storage.master or job.split.host_states or shards_weights(job.split):
        return ()
    return (Term("weights in one piece", job.storage.weight * job.census.trained, "DeepSpeed flattens them, and lets the first ones go after it"),)


def untied_head_terms(job: Job) -> Terms:
    """Random weights are drawn for a head too, before it is tied to the embedding; an adapter's random base is drawn on the CPU."""
    if job.run.model.init != "random" or not job.facts.tied or job.census.adapters or shards_weights(job.split):
        return ()
    return (Term("head, before it is tied", loaded_element(job.run) * job.head, "measured on one H200"),)


def quantised_matrix_terms(job: Job) -> Terms:
    if not job.census.quantised:
        return ()
    experts = (module.inputs * module.outputs for module in packed_experts(job.run.regime, job.facts))
    largest = max(job.census.largest_matrix, searched_matrix(job) or max(experts, default=0))
    return (Term("one matrix to quantise", job.storage.frozen * largest, "the largest, in 16 or 32 bits; of experts, one's"), *search_terms(job))


def search_terms(job: Job) -> Terms:
    """HQQ's search beside a matrix of one expert. That of linear layers comes before the embedding is on the GPU."""
    searched = searched_matrix(job)
    return (Term("search for 2 bits", int(constants.HQQ_SEARCH * searched), "hqq/core/optimize.py, in fp16"),) if searched else ()


def searched_matrix(job: Job) -> int:
    """Elements of the last matrix that HQQ searches 2 bits for, where experts are packed; else 0. Gate and up come before and are searched apart:
    what down takes in all experts is not there yet, which is more than their one matrix more."""
    packed = packed_experts(job.run.regime, job.facts)
    if not isinstance(job.run.regime, Qlora) or job.run.regime.bits != HQQ_BITS:
        return 0
    return max((module.inputs * module.outputs // (2 if module.name.endswith("gate_up_proj") else 1) for module in packed), default=0)


def split_expert_terms(job: Job) -> Terms:
    """transformers writes experts one by one, and gate and up apart: copies of every one (core_model_loading.py, revert_weight_conversion).

    They are made where the state to be written lies. DeepSpeed and FSDP2 bring it to the host first (accelerate/accelerator.py, get_state_dict);
    host.py counts them there.
    """
    if not job.census.experts or (job.gpu and not isinstance(job.run.sharding, Ddp)):
        return ()
    halves = sum(
        module.parameters * module.instances for module in job.facts.modules if module.kind == "experts" and module.name.endswith("gate_up_proj")
    )
    learning = min(job.census.experts * 2 // 3, halves)
    size = job.storage.weight * learning + job.storage.frozen * (halves - learning)
    return (Term("experts, one by one", size, "gate and up of all, as they are written"),)


def whole_tensor_terms(job: Job) -> Terms:
    """Loading and saving handle one whole tensor at a time where weights are split."""
    if not shards_weights(job.split):
        return ()
    return (Term("one whole tensor", job.storage.frozen * max(job.head, job.census.largest_matrix), "the largest, in 16 or 32 bits"),)


def gradient_term(job: Job, elements: int) -> Term:
    elsewhere = flat_gradients(job) or job.split.host_states or views_buckets(job)
    size = 0 if elsewhere else job.storage.gradient * max(elements, 0) // job.split.gradients
    return Term("gradients", size, f"{job.storage.gradient} B per trained weight, over {plural(job.split.gradients, 'rank')}")


def made_gradient_term(job: Job, elements: int) -> Term:
    """Of so many elements whose gradients were made in this pass. ZeRO-1 and 2 have them in their buckets, and from the first full bucket on their
    share in one piece (runtime/zero/stage_1_and_2.py, copy_grads_in_partition)."""
    if splits_by_buckets(job):
        elements = job.census.trained if elements > zero_bucket(job.census.trained) else 0
    return gradient_term(job, elements)


def accumulated_terms(job: Job) -> Terms:
    """Gradients of earlier passes of a step, around the loss."""
    if not accumulates(job):
        return ()
    if whole_between_passes(job):
        return (whole_accumulated_term(job), *waiting_bucket_terms(job))
    return (gradient_term(job, job.census.trained),)


def waiting_bucket_terms(job: Job) -> Terms:
    """ZeRO-1 makes its buckets for the first gradient of all, and gives them back when it has reduced: after the last pass
    (runtime/zero/stage_1_and_2.py, setup_buckets and _release_ipg_buffers; runtime/engine.py, allreduce_gradients)."""
    return reduction_terms(job) if isinstance(job.run.sharding, Zero) else ()


def whole_between_passes(job: Job) -> bool:
    """Gradients of several passes are added up before any is reduced: under FSDP2 (accelerate/accelerator.py, no_sync;
    torch/distributed/fsdp/_fully_shard/_fsdp_param_group.py, post_backward), DDP (whose buckets they reach in the last pass) and ZeRO-1
    (runtime/engine.py, allreduce_gradients)."""
    sharding = job.run.sharding
    splits_late = isinstance(sharding, (Fsdp, Ddp)) or (isinstance(sharding, Zero) and sharding.stage == 1)
    return splits_late and job.split.ranks > 1 and accumulates(job)


def whole_accumulated_term(job: Job) -> Term:
    """In the dtype of the pass: the last one splits them, or moves them into buckets, as it frees these."""
    element = job.storage.gradient if views_buckets(job) else job.storage.compute
    return Term("gradients", element * job.census.trained, "whole on every rank until the last pass of a step")


def partition_of_earlier_passes(job: Job) -> Terms:
    """ZeRO-2 copies its share of every pass into a new piece, and adds that to the share of those before it when the pass is over
    (runtime/zero/stage_1_and_2.py, copy_grads_in_partition and independent_gradient_partition_epilogue)."""
    if not (splits_by_buckets(job) and accumulates(job)) or whole_between_passes(job):
        return ()
    share = gradient_term(job, job.census.trained)
    return (Term("gradients of earlier passes", share.bytes, share.source),) if share.bytes else ()


def accumulates(job: Job) -> bool:
    return job.run.training.accumulation > 1


def splits_by_buckets(job: Job) -> bool:
    """ZeRO-1 and 2, on one rank too, whose share is all: measured on one H200 (results/speed/h200x2_scaling.jsonl, 1b-full/1/zero2)."""
    return isinstance(job.run.sharding, Zero) and job.run.sharding.stage < 3


def moving_gradient_terms(job: Job, made: int) -> Terms:
    """Of `made` elements of a layer: the last gradient is alive beside its place in a bucket."""
    return (Term("gradient on its way to its bucket", job.storage.gradient * min(made, job.census.largest_matrix), "at most the largest matrix"),)


def waiting_head_terms(job: Job) -> Terms:
    """A tied head's gradient is no weight's before the embedding's joins it (csrc/autograd/input_buffer.cpp): no bucket takes it until then.
    ZeRO-3's whole gradient on its way to the other ranks is as large, and counts among its buffers."""
    buckets = splits_by_buckets(job) or (views_buckets(job) and not accumulates(job))
    if not (buckets and job.facts.tied and job.census.head):
        return ()
    return (Term("gradient of the tied head", job.storage.gradient * job.census.head, "whole, until the embedding's joins it"),)


def step_terms(job: Job) -> Terms:
    split = partition_step_bytes(job.run, job.census, job.storage, job.split)
    own = 0 if job.split.host_states else step_bytes(job.run, job.census, job.storage)
    return tuple(
        term
        for term in (
            Term("flattened gradients", split, "DeepSpeed: the partition in one piece and in the masters' dtype"),
            Term("temporaries of the step", own, job.run.optim.name),
        )
        if term.bytes
    )


def reduction_terms(job: Job) -> Terms:
    size = reduction_bytes(job.run, job.facts, job.census, job.storage, job.split)
    return (Term("reduction buffers", size, "gradients on their way to the other ranks"),) if size else ()


def root_terms(job: Job) -> Terms:
    size = root_bytes(job.run, job.facts, job.census, job.storage, job.split)
    return (Term("gradients of embedding and head", size, "FSDP2: whole, and in one piece to be reduced"),) if size else ()
