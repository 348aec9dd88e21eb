"""Host memory of one node and disk under the run folder."""

from conf.schema import Badam, Fsdp, Lora, Qlora, Run, Zero
from launcher.memory.constants import CPU_SLACK, DATALOADER_WORKER, RANK_RSS_CPU, RANK_RSS_GPU
from launcher.memory.job import Job
from launcher.memory.optimizer import PAGED, state_bytes
from launcher.memory.parameters import weight_bytes
from launcher.memory.sharding import ranks_per_node
from launcher.memory.storage import loaded_element
from launcher.memory.terms import Term


def pinned(size: int) -> int:
    """A pinned block as torch's caching host allocator takes it: rounded up to a power of two (ATen/core/CachingHostAllocator.h)."""
    return 1 << (size - 1).bit_length() if size > 0 else 0


def host_terms(job: Job, peak: int) -> tuple[Term, ...]:
    """Of all ranks on one node; `peak` is what a rank allocates where its device is the CPU."""
    ranks = ranks_per_node(job.run)
    workers = Term("data workers", ranks * job.run.training.dataloader_workers * DATALOADER_WORKER, "private memory of a forked worker")
    if not job.gpu:
        return (
            Term("processes", ranks * RANK_RSS_CPU, "resident set after the imports, per rank"),
            Term("training", ranks * peak, "the largest phase, per rank"),
            Term("heap slack", int(ranks * CPU_SLACK * peak), "malloc and kernels' scratch, measured"),
            workers,
        )
    return (
        Term("processes", ranks * RANK_RSS_GPU, "resident set after the imports with CUDA's libraries, per rank"),
        larger_of(
            Term("loading", ranks * loading_bytes(job), "every rank reads the weights into host memory before its GPU gets them"),
            Term(
                "offload", ranks * offload_bytes(job), "DeepSpeed's masters, gradients, states and staging; pinned blocks rounded up to powers of two"
            ),
        ),
        Term("paged states", ranks * paged_bytes(job), "bitsandbytes' unified memory, when evicted"),
        workers,
    )


def larger_of(loading: Term, offload: Term) -> Term:
    """The GPU has the weights before the optimizer's buffers are made."""
    return max(loading, offload, key=lambda term: term.bytes)


def loading_bytes(job: Job) -> int:
    """Of one rank on its way to a GPU.

    Quantised layers go to the GPU one by one, but HQQ's from a whole model; random weights are made where they train, but under FSDP on
    the host; ZeRO-3 reads pages of the file, which are not the process' own.
    """
    run = job.run
    quantised_in_place = isinstance(run.regime, Qlora) and run.regime.bits != 2
    made_in_place = run.model.init == "random" and not isinstance(run.regime, Lora) and not isinstance(run.sharding, Fsdp)
    split_in_place = isinstance(run.sharding, Zero) and run.sharding.stage == 3
    return 0 if quantised_in_place or made_in_place or split_in_place else loaded_element(run) * job.census.base


def offload_bytes(job: Job) -> int:
    """Of one rank (runtime/zero/stage_1_and_2.py and stage3.py, offload_optimizer and offload_param)."""
    if not job.split.host_states:
        return 0
    storage, part = job.storage, job.census.trained // job.split.states
    # The states of DeepSpeedCPUAdam are ordinary memory; masters, their gradients and the 16-bit staging buffer are pinned.
    states = state_bytes(job.run, job.census, storage) // job.split.states
    buffers = pinned(storage.master * part) * 2 + pinned(storage.weight * part)
    return states + buffers + (pinned(weight_bytes(job.run, job.census, storage) // job.split.weights) if job.split.host_weights else 0)


def paged_bytes(job: Job) -> int:
    if job.run.optim.name not in PAGED:
        return 0
    return state_bytes(job.run, job.census, job.storage) // job.split.states


def checkpoint_bytes(job: Job) -> int:
    """What learns, its masters and its states; frozen weights are not saved again."""
    per_element = max(job.storage.weight, job.storage.master)
    saved = job.census.base if isinstance(job.run.optim, Badam) else job.census.trained  # BAdam: layers that had their turn have changed too
    return per_element * saved + state_bytes(job.run, job.census, job.storage)


def disk_terms(job: Job) -> tuple[Term, ...]:
    run: Run = job.run
    one = checkpoint_bytes(job)
    adapter = isinstance(run.regime, Lora)
    final = job.storage.weight * job.census.trained if adapter else job.storage.weight * job.census.base
    return (
        Term("checkpoints", one * run.checkpoint.keep, f"checkpoint.keep={run.checkpoint.keep} x what learns with its states"),
        Term("checkpoint in the making", one, "the oldest is removed after the newest is complete"),
        Term("final model", final, "adapter" if adapter else "all weights"),
    )
