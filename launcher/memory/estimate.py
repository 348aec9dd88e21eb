"""From a settled run and its model to a MemoryEstimate: the phases of a step, each as the sum of what is alive then."""

from dataclasses import replace
from functools import partial

from conf.evaluations import is_evaluated
from conf.schema import Qlora, Run, Zero
from conf.shardings import sharding_row
from launcher.facts.model import ModelFacts
from launcher.memory import constants
from launcher.memory.allocator.replay import fragment_bytes, reserved_bytes
from launcher.memory.disk import disk_terms
from launcher.memory.host import host_terms
from launcher.memory.job import Job, doubts_of, job_of, worst_batch
from launcher.memory.step.activations import Batch
from launcher.memory.step.added_tokens import merged_terms
from launcher.memory.step.fully_sharded import by_groups, tail_terms
from launcher.memory.step.head_phases import evaluation_term, head_phases, loss_terms
from launcher.memory.step.last_layer import last_layer_phases
from launcher.memory.step.saved import final_state_terms, saved_term
from launcher.memory.step.stage_phases import answer_phases, copy_terms, outside_phases, reference_phases
from launcher.memory.step.step_phases import cast_terms, end_terms, head_cast_terms, layer_phases
from launcher.memory.step.traced_moments import resident_buffers
from launcher.memory.terms import MemoryEstimate, Phase, Term, Terms, total
from launcher.memory.uncertainty import ranges_of, uncertainty_of
from launcher.memory.weights.held import as_held
from launcher.memory.weights.resident import (
    WHOLE_QUANTISED,
    accumulated_terms,
    gathered_terms,
    gradient_term,
    load_terms,
    resident_terms,
    split_expert_terms,
    step_terms,
    whole_tensor_terms,
)

__all__ = ["MemoryEstimate", "estimate", "estimate_batch"]


def estimate(run: Run, facts: ModelFacts) -> MemoryEstimate:
    """The memory of the longest batch that `run` allows.

    Raises:
        ValueError: when the run is not settled.
    """
    return estimate_batch(run, facts, worst_batch(run, facts))


def estimate_batch(run: Run, facts: ModelFacts, batch: Batch) -> MemoryEstimate:
    job = job_of(as_held(run), facts, batch)
    phases = phases_of(job)
    peak = max(phase.bytes for phase in phases)
    replayed = partial(reserved_bytes, job, total(copy_terms(job)))
    fragments, host = fragment_bytes(job, peak), host_terms(replace(job, run=run), peak)
    sure = uncertainty_of(job), ranges_of(job)
    return MemoryEstimate(phases, fragments, outside_terms(job), host, disk_terms(job), doubts_of(job), *sure, replayed)


def outside_terms(job: Job) -> Terms:
    if not job.gpu:
        return ()
    context = Term("CUDA context", constants.CUDA_CONTEXT + library_bytes(job), "NVML's figure of a process minus torch reserved, one H200")
    nccl = Term("NCCL", sharding_row(job.run.sharding.name).nccl + quantised_parts(job), "the same minus the context, 2 x H200")
    return (context, nccl) if job.split.ranks > 1 else (context,)


def library_bytes(job: Job) -> int:
    """What the context has more or less than that of most runs."""
    run = job.run
    eight_bits = isinstance(run.regime, Qlora) and run.regime.bits == 8
    in_one_thread = constants.ONE_THREAD if run.training.kernels == "fused" else 0
    return (constants.INT8_LIBRARY if eight_bits else 0) + (constants.LINEAR_ALGEBRA if run.optim.name.startswith("galore") else 0) - in_one_thread


def quantised_parts(job: Job) -> int:
    """Under ZeRO-3 what is quantised goes through a communicator of its own: three runs held 0.279 to 0.284 GiB more, as much as all of DDP's."""
    return sharding_row("ddp").nccl if isinstance(job.run.regime, Qlora) and job.split.weights > 1 and isinstance(job.run.sharding, Zero) else 0


def phases_of(job: Job) -> tuple[Phase, ...]:
    resident, gathered = (*resident_terms(job), *copy_terms(job), *resident_buffers(job)), gathered_terms(job)
    between = (*resident, *merged_terms(job))
    inside = (*between, *gathered)
    after = (*between, *(tail_terms(job) if by_groups(job) else gathered))
    accumulated = accumulated_terms(job)
    forward, backward = loss_terms(job)
    return (
        Phase("load", (*load_terms(job), *copy_terms(job))),
        *answer_phases(job, between),
        *reference_phases(job, (*between, *accumulated)),
        Phase("forward and loss", (*inside, *accumulated, saved_term(job), *cast_terms(job), *final_state_terms(job), forward)),
        *outside_phases(job, (*after, *accumulated, saved_term(job), *head_cast_terms(job))),
        *last_layer_phases(job, (*after, *accumulated)),
        Phase("backward: loss", (*after, *accumulated, saved_term(job), *head_cast_terms(job), backward)),
        *head_phases(job, (*after, *accumulated)),
        *layer_phases(job, between),
        Phase("backward: end", (*between, *end_terms(job))),
        Phase("optimizer step", (*resident, gradient_term(job, job.census.trained), *step_terms(job))),
        *((Phase("evaluation", (*inside, evaluation_term(job))),) if is_evaluated(job.run) else ()),
        Phase("save", (*(term for term in resident if term.name != WHOLE_QUANTISED), *whole_tensor_terms(job), *split_expert_terms(job))),
    )
