"""Models and phases that a stage has beside those of next-token training, as terms."""

from launcher.memory.activations import mlp_width
from launcher.memory.job import Job
from launcher.memory.passes import cast_terms, final_norm_bytes, layer_stream, logits_of, saved_term
from launcher.memory.stage_loss import reference_bytes
from launcher.memory.stages import Loss, stage_row
from launcher.memory.terms import Phase, Term, Terms

OUTSIDE_SOURCE = "fp32 logits outside of the model, and the copies that metrics make (launcher/memory/stage_loss.py, by line of TRL)"


def copy_terms(job: Job) -> Terms:
    """TRL splits a frozen copy under ZeRO-3 and FSDP2 as the model, and keeps it whole elsewhere (trl/models/utils.py, prepare_deepspeed)."""
    size = job.copies.reference * job.storage.frozen * job.census.base // job.split.weights
    return (Term("reference model", size, f"{job.storage.frozen} B per weight, over {job.split.weights} rank(s)"),) if size else ()


def outside_phases(job: Job, alive: Terms) -> tuple[Phase, ...]:
    """Between the model's forward pass and the backward pass."""
    size = logits_of(job).outside
    return (Phase("loss", (*alive, Term("logits and metrics", size, OUTSIDE_SOURCE))),) if size else ()


def score_phases(job: Job, alive: Terms) -> tuple[Phase, ...]:
    """Where no logits stand above them: the last layer's forward pass, of which nothing is kept, and the backward pass of the norm after it."""
    if stage_row(job.run).loss is not Loss.SCORE or not job.run.training.gradient_checkpointing:
        return ()
    saved = saved_term(job)
    below = Term(saved.name, saved.bytes - final_norm_bytes(job), "without the last norm")
    layer = Term("forward pass of the layer", forward_layer_bytes(job), "MLP, adapters' output and residual stream")
    norm = Term("norm gradients", 6 * 4 * job.facts.hidden * job.tokens, "of the last norm, in fp32")
    return (Phase("forward: last layer", (*alive, below, *cast_terms(job), layer)), Phase("backward: loss, last norm", (*alive, below, norm)))


def forward_layer_bytes(job: Job) -> int:
    """At the MLP's product: its factors and itself; of an adapter its product, scaled, and PEFT's fp32 copy of the input (tuners/lora/layer.py)."""
    arithmetic, adapted = job.arithmetic, job.census.adapters > 0
    inner = arithmetic.element * (4 if adapted else 3) * mlp_width(job.facts)
    stream = arithmetic.residual + arithmetic.element + (4 if adapted and job.storage.autocast else 0)
    return (inner + stream * job.facts.hidden) * job.tokens


def reference_phases(job: Job, alive: Terms) -> tuple[Phase, ...]:
    """Of the reference model, or of the base without its adapter; before the policy's forward pass."""
    if not job.has_reference:
        return ()
    logits = Term("logits of the reference", reference_bytes(job.facts, job.storage, job.batch), "trainers/preferences.py, completion_logps")
    stream = Term("one layer", layer_stream(job, job.tokens), "a forward pass without gradients")
    return (Phase("forward: reference", (*alive, stream, logits)),)
