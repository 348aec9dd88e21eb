"""Host memory of one node that nothing can drop (anonymous, shared and pinned; no pages of files), and disk under the run folder."""

from collections import Counter

from conf.constants import WEIGHTS_FILE
from conf.loading import reads_shares
from conf.mixtures import draws_experts
from conf.regimes import regime_row
from conf.schema import Ddp, Fsdp, Qlora, Zero
from launcher.memory.constants import (
    CPU_SLACK,
    CUDA_CONTEXT,
    DATALOADER_WORKER,
    DEEPSPEED,
    EXPERT_KERNELS,
    MALLOC_MAPS,
    RANK_HOST_CPU,
    RANK_HOST_LOADING,
    RANK_HOST_TRAINING,
)
from launcher.memory.disk import adapts, checkpoint_tensors
from launcher.memory.job import Job
from launcher.memory.terms import Term, Terms, total
from launcher.memory.weights.dtypes import loaded_element
from launcher.memory.weights.offload import offload_terms
from launcher.memory.weights.optimizer import is_paged, state_bytes, unpaged_bytes
from launcher.memory.weights.parameters import packed_bytes, packed_experts, weight_bytes

PROCESSES = "processes"
IN_FLIGHT = "checkpoint in flight"
IMPORTS = "anonymous memory after the imports with CUDA's context, per rank"
SLICES = 4  # that transformers reads at once: GLOBAL_WORKERS of core_model_loading.py
KERNELS = "the same with the kernels of all libraries loaded, per rank"


def host_terms(job: Job, peak: int) -> Terms:
    """Of all ranks on one node; `peak` is what a rank allocates where its device is the CPU."""
    ranks = job.run.cluster.ranks_per_node
    copied = Term(IN_FLIGHT, copied_bytes(job), "copied by the first rank and written while training goes on: checkpoint.background")
    workers = Term("data workers", ranks * job.run.training.dataloader_workers * DATALOADER_WORKER, "private memory of a forked worker")
    if not job.gpu:
        held = peak - mapped_bytes(job)
        return (
            Term(PROCESSES, ranks * RANK_HOST_CPU, "anonymous memory after the imports, per rank"),
            Term("training", ranks * held, "the largest phase, per rank; frozen weights may stay pages of their files"),
            Term("heap slack", int(ranks * CPU_SLACK * held), "malloc and kernels' scratch, measured"),
            workers,
            *([copied] if copied.bytes else []),
        )
    alone = (copied,) if copied.bytes else ()
    return (*together(fullest(job, peak, leads=True, beside=alone), fullest(job, peak, leads=False), ranks - 1), workers)


def together(first: Terms, others: Terms, count: int) -> Terms:
    """The rank that saves, and `count` others, which may be fullest in another phase."""
    names = {term.name: term.source for term in (*first, *(others if count else ()))}
    sizes = {name: sum(t.bytes for t in first if t.name == name) + count * sum(t.bytes for t in others if t.name == name) for name in names}
    return tuple(Term(name, sizes[name], source) for name, source in names.items() if sizes[name])


def fullest(job: Job, peak: int, *, leads: bool, beside: Terms = ()) -> Terms:
    """A rank's phase that takes most: loading, the engine's start, or training and saving beside what is offloaded."""
    loading, training = Term(PROCESSES, RANK_HOST_LOADING, IMPORTS), Term(PROCESSES, RANK_HOST_TRAINING + kernel_bytes(job), KERNELS)
    started = Term(PROCESSES, RANK_HOST_LOADING + engine_bytes(job), "the same with DeepSpeed")
    held = (
        *beside,
        *offload_terms(job),
        Term("paged states", evicted_bytes(job, peak), "bitsandbytes' unified memory, where the GPU has no room for it"),
    )
    loaded = Term("loading", loading_bytes(job), "of the weights, before the GPU gets them; 16-bit ones stay pages of their files")
    phases = (
        (loading, *random_base_terms(job, leads=leads)),
        (loading, loaded),
        (
            started,
            loaded,
            Term("one tensor, cast", cast_bytes(job), "DeepSpeed casts the model on the host (runtime/engine.py, _configure_distributed_model)"),
        ),
        (
            started,
            Term("weights in one piece", flattened_bytes(job), "ZeRO-3 puts its share together on the host (runtime/zero/utils.py, defragment)"),
        ),
        (training, *held, Term("saving", saving_bytes(job, leads=leads), "the final model, or a checkpoint, on its way to files")),
    )
    return max(phases, key=total)


def engine_bytes(job: Job) -> int:
    return DEEPSPEED if isinstance(job.run.sharding, Zero) else 0


def kernel_bytes(job: Job) -> int:
    """Libraries that the first step loads beyond those of every run."""
    return engine_bytes(job) + (EXPERT_KERNELS if job.facts.mixture else 0)


def cast_bytes(job: Job) -> int:
    """The largest tensor in 16 bits beside the fp32 ones, where what was loaded in fp32 is to be 16 bits."""
    loaded = loading_bytes(job) if isinstance(job.run.sharding, Zero) else 0
    return job.storage.weight * job.census.largest if loaded and loaded_element(job.run) > job.storage.weight else 0


def packs(job: Job) -> bool:
    """Whether experts are quantised one by one, which a rank does on its GPU, and draws there (trainers/model/mixtures.py)."""
    return len(packed_experts(job.run.regime, job.facts)) > 0


def random_base_terms(job: Job, *, leads: bool) -> Terms:
    """An adapter's random base is drawn by the first rank on the host, and saved: of experts, gate and up projections are written from copies."""
    if not leads or job.run.model.init != "random" or not adapts(job) or draws_experts(job.run):
        return ()
    size = job.storage.frozen * (job.census.base + untied_head(job) + 2 * experts(job) // 3)
    return (Term("random base", size, "drawn and saved by the first rank"),)


def loading_bytes(job: Job) -> int:
    """Of one rank on its way to a GPU: measured on a CPU for Qwen2.5-0.5B, qwen3_moe and mixtral, with the code that loads them here.

    safetensors maps its files, so that weights in the dtype of their files (16 bits) are no memory of the process until they are copied to the GPU;
    those that become fp32 are. Where each rank of FSDP2 reads its share, it has a few slices in hand.
    bitsandbytes' layers go straight to the GPU; ZeRO-3 reads its parts from the mapped files; random weights are made where they train, but under
    FSDP on the host.
    """
    run, element = job.run, loaded_element(job.run)
    quantised_in_place = isinstance(run.regime, Qlora) and (run.regime.bits != 2 or packs(job))
    split_in_place = isinstance(run.sharding, Zero) and run.sharding.stage == 3
    if quantised_in_place or split_in_place:
        return 0
    if reads_shares(run, job.facts.mixture):
        return SLICES * element * job.census.largest // job.split.weights if element > 2 else 0
    if run.model.init == "random" and not adapts(job):
        return element * (job.census.base + untied_head(job)) if isinstance(run.sharding, Fsdp) else 0
    if element == 2:
        return element * stacked(job)
    return element * (job.census.base + (experts(job) if element * one_expert(job) <= MALLOC_MAPS else 0))


def mapped_bytes(job: Job) -> int:
    """Where a rank trains on the host: frozen weights in the dtype of their files, of which ZeRO-3 makes parts and experts are stacked."""
    run = job.run
    from_files = run.model.init == "pretrained" or adapts(job)
    if not from_files or loaded_element(run) != 2 or regime_row(run.regime.name).quantised or job.split.weights > 1:
        return 0
    return job.storage.frozen * max(job.census.frozen - experts(job), 0)


def stacked(job: Job) -> int:
    """Files hold expert by expert; they are stacked in memory, and gate and up of one layer are two stacks before they are one."""
    layers = max((len(module.layers) for module in job.facts.modules if module.kind == "experts"), default=1)
    return experts(job) + 2 * experts(job) // (3 * layers)


def experts(job: Job) -> int:
    return sum(module.parameters * module.instances for module in job.facts.modules if module.kind == "experts")


def one_expert(job: Job) -> int:
    """Elements of one matrix of it. Freed blocks of malloc's heap are kept, but those that it maps one by one are returned (mallopt(3))."""
    return job.facts.hidden * job.facts.intermediate


def untied_head(job: Job) -> int:
    """Random weights are drawn for a head too, before it is tied to the embedding."""
    return job.head if job.facts.tied else 0


def flattened_bytes(job: Job) -> int:
    split_here = isinstance(job.run.sharding, Zero) and job.run.sharding.stage == 3 and not job.split.host_weights
    return job.storage.weight * job.census.trained // job.split.weights if split_here else 0


def saving_bytes(job: Job, *, leads: bool) -> int:
    """Of one rank, at a checkpoint and at the end. The first rank holds what it writes: an adapter, every weight, or under ZeRO and FSDP2 one file
    of them after the other (trainers/checkpoints/streamed.py). Each rank of FSDP2 writes its share of a checkpoint tensor by tensor.
    """
    sharding = job.run.sharding
    share = job.storage.weight * job.census.largest // job.split.weights if isinstance(sharding, Fsdp) else 0
    if not leads:
        return share
    if adapts(job):
        return max(job.storage.weight * job.census.trained, share)
    whole = weight_bytes(job.run, job.census, job.storage) - packed_bytes(job.run, job.facts)
    return whole if isinstance(sharding, Ddp) else max(min(whole, file_bytes(job)), share)


def file_bytes(job: Job) -> int:
    """The largest of them: layers stay whole, and of the last one's experts gate and up are copied, because files want them apart."""
    inside, outside = Counter[int](), [0]
    for module in job.facts.modules:
        inside.update(dict.fromkeys(module.layers, module.parameters))
        outside += [] if module.layers else [module.parameters]
    layers = max((len(module.layers) for module in job.facts.modules if module.kind == "experts"), default=1)
    largest = job.storage.weight * max(*inside.values(), *outside)
    return max(WEIGHTS_FILE, largest) + job.storage.weight * 2 * experts(job) // (3 * layers)


def copied_bytes(job: Job) -> int:
    """Of what a checkpoint holds, which the first rank keeps until it is written, and for the next one (trainers/checkpoints/background.py)."""
    return checkpoint_tensors(job) if job.run.checkpoint.background else 0


def evicted_bytes(job: Job, peak: int) -> int:
    """Paged states live on the GPU while it has room: two runs on an H200 held none of 1.9 and 3.7 GiB on the host (memory/h200_from_files.jsonl)."""
    if not is_paged(job.run):
        return 0
    states = (state_bytes(job.run, job.census, job.storage) - unpaged_bytes(job.run, job.census)) // job.split.states
    room = max(0, job.run.node.capacity - CUDA_CONTEXT - peak)
    return max(0, states - room)
