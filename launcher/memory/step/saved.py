"""What the forward pass leaves for the backward pass."""

from conf.stages import Loss, compares_joined, stage_row
from launcher.memory.job import Job
from launcher.memory.step.activations import last_state_element, norm_bytes, widened
from launcher.memory.step.recomputation import kept_bytes, kept_inputs, kept_layers, last_again, recomputed_layers
from launcher.memory.terms import Term, Terms


def stream_terms(job: Job, layers: int) -> Terms:
    """Inputs of `layers` layers, and the rotary tables: one for all samples, unless packing gives each its own positions."""
    rotary = 2 * job.arithmetic.residual * job.facts.head_dim * job.batch.length * (job.batch.samples if job.run.data.packing else 1)
    stream = layers * job.arithmetic.residual * job.facts.hidden * job.tokens - (narrow_embedding(job) if layers else 0)
    return (Term("layer inputs", stream + rotary, f"{layers} x residual stream, and cos and sin"),)


def saved_term(job: Job) -> Term:
    """What waits for the backward pass when the loss is computed."""
    if job.trace is not None:
        return Term("saved activations", job.traced(job.trace.kept) + head_input_bytes(job) * job.tokens, "traced; and the input of the head")
    (stream,) = stream_terms(job, kept_inputs(job, job.census.depth))
    dropped = job.facts.hidden * job.tokens if job.facts.residual_dropout else 0  # the mask of the embedding's dropout
    saved = stream.bytes + final_norm_bytes(job) + mask_bytes(job) + dropped
    if last_again(job):
        return Term("saved activations", saved, f"checkpoints of {job.census.depth} layers, last norm, cos and sin")
    again = f"checkpoints of {recomputed_layers(job)} layers, " if recomputed_layers(job) else ""
    return Term("saved activations", max(saved + kept_bytes(job), 0), f"{again}{kept_layers(job)} layers, last norm, cos and sin")


def narrow_embedding(job: Job) -> int:
    """Where the first layer widens the residual stream, its own input is still as narrow as the embedding."""
    widens = job.storage.autocast and widened(job.run, job.facts)
    return (job.arithmetic.residual - job.storage.frozen) * job.facts.hidden * job.tokens if widens else 0


def final_norm_bytes(job: Job) -> int:
    return (norm_bytes(job.facts, job.arithmetic, job.whole) + head_input_bytes(job)) * job.tokens


def head_input_bytes(job: Job) -> int:
    """Kept for the gradient of a head that learns; the other losses keep the states themselves, or make that gradient at once. A head that reads
    the last token of each text keeps next to nothing."""
    return job.arithmetic.element * job.facts.hidden if job.census.head and job.run.training.loss == "plain" and not scores_ends(job) else 0


def scores_ends(job: Job) -> bool:
    return compares_joined(job.run) and stage_row(job.run.stage.name).loss is Loss.SCORE


def mask_bytes(job: Job) -> int:
    """Kept for the layers that are computed again; without that every attention call keeps a bias of its own."""
    return held_mask_bytes(job) if job.run.training.gradient_checkpointing else 0


def held_mask_bytes(job: Job) -> int:
    """Until the forward pass returns: sdpa takes a boolean mask, eager one in the dtype of the scores (transformers/masking_utils.py)."""
    squares = job.batch.samples * job.batch.length**2
    if job.run.training.attention == "eager":
        return job.arithmetic.element * squares * (2 if job.facts.traits.two_masks else 1)
    return squares if job.batch.masked else 0


def final_state_terms(job: Job) -> Terms:
    """The model's last hidden states live until its forward pass returns; the chunked loss keeps them, and so does a head that learns, but
    under autocast as a copy."""
    kept_by_head = job.census.head > 0 and not job.storage.autocast and job.run.training.loss == "plain" and not scores_ends(job)
    shared = kept_by_head or job.run.training.loss == "chunked"
    element = last_state_element(job.facts, job.arithmetic) if job.trace is None else job.trace.last_state
    size = 0 if shared else element * job.facts.hidden * job.tokens
    return (Term("last hidden states", size, "alive until the forward pass returns"),) if size else ()
