"""Activations and the work of the forward and backward pass, as terms of a phase."""

from dataclasses import replace

from conf.buckets import zero_bucket
from conf.schema import Badam
from launcher.facts.model.trace import Trace
from launcher.memory.job import Job
from launcher.memory.step.activations import mlp_width
from launcher.memory.step.fully_sharded import by_groups, end_buffers, first_layer_buffers, last_layer_buffers, whole_gradients
from launcher.memory.step.fused_layer import fused_moments
from launcher.memory.step.layer_backward import learning_moments
from launcher.memory.step.recomputation import (
    kept_casts,
    kept_inputs,
    kept_layers,
    kept_learning,
    last_again,
    lower_layers_terms,
    of_layer,
    recomputed_layers,
    unsaved_norm,
)
from launcher.memory.step.saved import mask_bytes, stream_terms
from launcher.memory.step.traced_moments import first_layer, largest_moment, moment_terms
from launcher.memory.terms import ONE_LAYER, Moment, Phase, Term, Terms, total
from launcher.memory.weights.gathering import by_layers
from launcher.memory.weights.resident import (
    accumulates,
    flat_gradients,
    gathered_terms,
    gradient_term,
    made_gradient_term,
    module_terms,
    moving_gradient_terms,
    partition_of_earlier_passes,
    reduction_terms,
    root_terms,
    splits_by_buckets,
    views_buckets,
    waiting_head_terms,
    whole_accumulated_term,
    whole_between_passes,
)

EMBEDDING_IN_PLACE, EMBEDDING_ROWS = 3072, 10  # tokens (EmbeddingBackwardKernel.cu, embedding_dense_backward_cuda and NROWS_PER_THREAD)


def end_terms(job: Job) -> Terms:
    """The embedding's output and, where checkpointing makes it a leaf, its gradient."""
    leaf = job.run.training.gradient_checkpointing and not job.census.embedding
    trained = made_gradient_term(job, job.census.trained - (job.census.embedding if by_groups(job) else 0))
    if whole_between_passes(job):
        trained = whole_accumulated_term(job)
    streams = stream_terms(job, 2 if leaf else 1) if job.trace is None else (largest_moment(job, job.trace.end),)
    work = (*streams, *embedding_terms(job))
    if by_groups(job):
        return (trained, *end_buffers(job), *(() if job.facts.tied else work))
    summed = pending_terms(job, summed=True)
    ends = max((*work, *pending_terms(job, summed=False)), summed, key=total)
    gradients = (trained, *partition_of_earlier_passes(job))
    return (*gathered_terms(job), *module_terms(job, job.head), *reduction_terms(job), *gradients, *ends, *root_terms(job))


def embedding_terms(job: Job) -> Terms:
    """CUDA sums the gradient of an embedding in fp32 by parts, at most one for every ten tokens and every distinct token
    (aten/src/ATen/native/cuda/EmbeddingBackwardKernel.cu; up to 3,072 tokens it adds them in place)."""
    tokens, facts = job.tokens, job.facts
    if not (job.gpu and job.census.embedding and tokens > EMBEDDING_IN_PLACE):
        return ()
    parts = tokens // EMBEDDING_ROWS + min(tokens, facts.vocab)
    return (Term("sums of the embedding's gradient", 4 * parts * facts.hidden, "EmbeddingBackwardKernel.cu, in fp32"),)


def pending_terms(job: Job, summed: bool) -> Terms:
    """Gradients of the embedding that wait at the end, beside the one that is counted already: a tied one has another as the head, and without
    autocast's copy between them torch then adds the two into a third (csrc/autograd/input_buffer.cpp; measured up to 3,072 tokens, and not with
    4,096: full_bf16-chunked-lion_8bit/qwen2.5_1.5b/4x1024; nor on one rank with the fused kernels, whose backward pass runs in the calling thread);
    an earlier pass may have left one; and where gradients are split, the whole one is still there while its share, or its place in a bucket, is
    made."""
    called = job.run.training.kernels == "fused" and job.split.ranks == 1  # trainers/kernels/stepping.py, go_back_in_this_thread
    third = summed and not job.storage.autocast and job.tokens <= EMBEDDING_IN_PLACE and not called
    tied = 0 if not job.facts.tied else 2 if third else 1
    copied = job.storage.master or (views_buckets(job) and not accumulates(job))
    whole = 1 if copied and job.split.ranks > 1 else 0
    held = job.split.host_states and not flat_gradients(job)  # no gradient is counted on the GPU, but the embedding's own waits there too
    # what is split is no weight's own gradient any more
    earlier = accumulates(job) and (job.split.gradients == 1 or whole_between_passes(job))
    size = job.storage.gradient * job.census.embedding * (tied + whole + held + earlier)
    return (Term("gradients to be summed", size, "of the embedding: as the head, their sum, of an earlier pass, before it is split"),) if size else ()


def cast_terms(job: Job) -> Terms:
    if not job.autocasts:
        return ()
    if holds_casts(job):
        return head_cast_term(job)
    return (Term("autocast copies", job.storage.compute * (job.census.cast + job.census.head), "kept until the forward pass ends"),)


def holds_casts(job: Job) -> bool:
    """Whether the copies of the layers' weights are among what a trace found."""
    return job.trace is not None and not job.run.training.gradient_checkpointing


def head_cast_term(job: Job) -> Terms:
    return (Term("autocast copies", job.storage.compute * job.census.head, "the head's"),)


def head_cast_terms(job: Job) -> Terms:
    """With checkpointing only the head's copy outlives the forward pass; without, autograd keeps all. The fused loss keeps none of the head."""
    if job.run.training.loss == "fused":
        return lower_casts(job)
    if job.run.training.gradient_checkpointing and job.storage.autocast:
        head = job.head if isinstance(job.run.optim, Badam) else job.census.head  # there it is fp32 although it does not learn
        return (Term("autocast copies", job.storage.compute * head, "the head's, until its backward"), *lower_casts(job))
    return cast_terms(job)


def reached(job: Job, finished: int, within: int) -> Terms:
    """Gradients that exist: of what lies above, and within this layer; where several passes accumulate, all do."""
    if by_groups(job):
        finished -= job.census.head if job.facts.tied else 0
        made = whole_accumulated_term(job) if accumulates(job) else gradient_term(job, finished)
        return (made, whole_gradients(job, within))
    if by_layers(job.run):
        return (gradient_term(job, finished), whole_gradients(job, within))
    waiting = waiting_head_terms(job)
    if splits_by_buckets(job):
        made = made_gradient_term(job, finished + within - total(waiting) // job.storage.gradient)
        kept = (whole_accumulated_term(job),) if whole_between_passes(job) else (made, *partition_of_earlier_passes(job))
        return (*kept, *waiting, *moving_gradient_terms(job, within))
    if views_buckets(job) and not accumulates(job):
        return (*waiting, *moving_gradient_terms(job, within))
    tied_head = job.storage.gradient * (job.census.head if job.facts.tied else 0)  # waits for the embedding's, beside that of an earlier pass
    if views_buckets(job):
        return (whole_accumulated_term(job), Term("gradient of the tied head", tied_head, "until the embedding's joins it"))
    if whole_between_passes(job):
        return (whole_accumulated_term(job),)
    if accumulates(job):
        return (gradient_term(job, job.census.trained + (job.census.head if job.facts.tied else 0)),)
    return (gradient_term(job, finished + within),)


def buffer_terms(job: Job) -> Terms:
    return (*gathered_terms(job), *module_terms(job, job.census.largest_matrix), *reduction_terms(job))


def last_layer_terms(job: Job, gradients: int) -> Terms:
    """The head's gradient exists; every layer's checkpoint, or all that the layers below saved, is still there."""
    buffers = last_layer_buffers(job) if by_groups(job) else buffer_terms(job)
    streams = stream_terms(job, kept_inputs(job, job.census.depth))
    return (*buffers, *reached(job, job.census.head, gradients), *streams, *lower_layers_terms(job))


def layers_until_full(job: Job) -> int:
    """Layers above the one in which a bucket of ZeRO-1 and 2 is full for the first time: the rank whose share begins there makes room for all of it
    then (runtime/zero/stage_1_and_2.py, copy_grads_in_partition). 0: in the last layer, whose moments count anyway, or never."""
    if not splits_by_buckets(job) or accumulates(job) or not job.census.layer:
        return 0
    above = (zero_bucket(job.census.trained) - (0 if job.facts.tied else job.census.head)) // job.census.layer
    return above if 0 < above < min(job.census.trained_layers, max(kept_layers(job), job.census.depth * last_again(job))) else 0


def full_bucket_terms(job: Job, gradients: int) -> Terms:
    above = layers_until_full(job)
    streams = stream_terms(job, kept_inputs(job, job.census.depth - above))
    made = reached(job, job.census.head + above * job.census.layer, gradients)
    return (*buffer_terms(job), *made, *streams, *lower_layers_terms(job, above))


def without_product(job: Job, moment: Moment) -> Moment:
    """Where the gradient of the MLP's last matrix, the first of a layer, fills the bucket: that matrix has given back its input by then."""
    if moment.name != "layer":
        return moment
    product = job.arithmetic.element * mlp_width(job.facts) * job.tokens
    less = (replace(term, bytes=max(0, term.bytes - product * (term.name == ONE_LAYER))) for term in moment.terms)
    return replace(moment, terms=tuple(less))


def middle_layer_terms(job: Job, gradients: int) -> Terms:
    """Of the highest layer that is computed again, below others that are not: these have their gradients, and what they kept has gone."""
    above = job.census.head + job.census.layer * (kept_layers(job) if job.census.adapters else kept_learning(job))
    return (*buffer_terms(job), *reached(job, above, gradients), *stream_terms(job, kept_inputs(job, job.census.depth)))


def first_layer_terms(job: Job, gradients: int) -> Terms:
    """Of the first layer that learns: all gradients but the rest of its own and an untied embedding's."""
    below = 0 if job.facts.tied else job.census.embedding
    buffers = first_layer_buffers(job) if by_groups(job) else buffer_terms(job)
    reached_here = reached(job, job.census.trained - below - job.census.layer, gradients)
    return (*buffers, *reached_here, *stream_terms(job, kept_inputs(job, 1)))


def layer_phases(job: Job, inside: Terms) -> tuple[Phase, ...]:
    """The ends of the stack, and of the part that is computed again: in between, what is saved shrinks and what has a gradient grows steadily."""
    if job.trace is not None:
        return traced_layer_phases(job, job.trace, inside)
    mask = Term("mask", mask_bytes(job), "boolean for sdpa, in the scores' dtype for eager attention")
    moments = fused_moments if job.arithmetic.fused else learning_moments
    first = of_layer(job, recomputed_layers(job) > 0 or last_again(job))
    ends = [("last", last_layer_terms, moments(of_layer(job, last_again(job)), 0)), ("first", first_layer_terms, moments(first, unsaved_norm(job)))]
    if layers_until_full(job):
        ends.append(("full bucket,", full_bucket_terms, tuple(without_product(job, moment) for moment in ends[0][2])))
    if not last_again(job) and recomputed_layers(job) > 1:
        ends.append(("middle", middle_layer_terms, moments(first, 0)))
    return tuple(
        Phase(phase_name(end, moment.name), (*inside, *around(job, moment.gradients), *moment.terms, mask))
        for end, around, found in ends
        for moment in found
    )


def traced_layer_phases(job: Job, trace: Trace, inside: Terms) -> tuple[Phase, ...]:
    """The same of a trace, whose moments hold all activations."""
    below = 0 if job.facts.tied else job.census.embedding
    ends = (
        ("last", trace.last, last_layer_buffers(job) if by_groups(job) else buffer_terms(job), job.census.head),
        ("first", trace.first, first_layer_buffers(job) if by_groups(job) else buffer_terms(job), job.census.trained - below - first_layer(job)),
    )
    return tuple(
        Phase(
            phase_name(end, f"layer, moment {number}"),
            (*inside, *buffers, *reached(job, finished, moment.gradients), *moment_terms(job, moment)),
        )
        for end, moments, buffers, finished in ends
        for number, moment in enumerate(moments, 1)
    )


def phase_name(end: str, moment: str) -> str:
    return f"backward: {end} {moment}"


def lower_casts(job: Job) -> Terms:
    """Without checkpointing autograd keeps autocast's copies of every layer until its backward."""
    if last_again(job) or not job.autocasts or job.trace is not None:
        return ()
    return (Term("autocast copies", job.storage.compute * kept_casts(job), "of the layers' weights, kept by autograd"),)
