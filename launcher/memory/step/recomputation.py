"""Which layers are computed again in the backward pass, and what the others keep for it.

A number as training.gradient_checkpointing reaches the lowest layers. The backward pass begins at the highest one, while all that was kept is still
there: where that one is not computed again, no second copy of what it saved is needed then. When the first layer is computed again, all that the
layers above it kept has gone.
"""

from dataclasses import replace

from conf.checkpointing import recomputed
from launcher.memory.job import Job
from launcher.memory.step.activations import mixture_layers, norm_bytes
from launcher.memory.step.experts import layer_experts
from launcher.memory.step.layer_backward import layer_saved
from launcher.memory.terms import Term, Terms


def recomputed_layers(job: Job) -> int:
    return recomputed(job.run.training.gradient_checkpointing, job.census.depth)


def kept_layers(job: Job) -> int:
    """Those that keep what they save, the highest ones."""
    return job.census.depth - recomputed_layers(job)


def kept_learning(job: Job) -> int:
    """Of those, the ones whose own weights learn: frozen ones lie above them."""
    frozen = job.census.depth - min(job.census.trained_layers, job.census.depth)
    return kept_layers(job) - min(frozen, kept_layers(job))


def last_again(job: Job) -> bool:
    """Whether the highest layer is computed again."""
    value = job.run.training.gradient_checkpointing
    return value if isinstance(value, bool) else kept_layers(job) == 0


def of_layer(job: Job, again: bool) -> Job:
    """The job as a layer sees it that is computed again, or is not."""
    if job.run.training.gradient_checkpointing is again:
        return job
    return replace(job, run=replace(job.run, training=replace(job.run.training, gradient_checkpointing=again)))


def kept_inputs(job: Job, layers: int) -> int:
    """Of so many layers from the lowest one: each that is computed again keeps its input."""
    value = job.run.training.gradient_checkpointing
    return min(layers, value) if not isinstance(value, bool) else layers if value else 0


def lower_layers_terms(job: Job, above: int = 0) -> Terms:
    """What the layers kept below the last, or below the one that has so many above it, and autocast's copies of their weights."""
    if last_again(job):
        return ()
    last = layer_saved(job, learns=job.census.trained_layers > 0)
    saved = Term("saved activations", max(kept_bytes(job) - (above + 1) * last, 0), "layers below this one")
    if not job.autocasts:
        return (saved,)
    copies = job.storage.compute * max(kept_casts(job) - (above + 1) * (job.census.layer - layer_experts(job)), 0)
    return (saved, Term("autocast copies below", copies, "of the weights of the layers below, kept by autograd"))


def kept_bytes(job: Job) -> int:
    """What the layers that are not computed again keep."""
    kept, learning = kept_layers(job), kept_learning(job)
    saved = learning * job.learning_layer if learning else 0
    if kept > learning:
        saved += (kept - learning) * job.frozen_layer
    lowest = 0 if recomputed_layers(job) else unsaved_norm(job)
    return saved + job.merged_experts * min(mixture_layers(job.facts), kept) - lowest


def kept_casts(job: Job) -> int:
    """Elements of which autograd keeps autocast's copies: the weights that learn of the layers that are not computed again."""
    if not recomputed_layers(job):
        return job.census.cast
    kept, every = (kept_layers(job), job.census.depth) if job.census.adapters else (kept_learning(job), job.census.trained_layers)
    return job.census.cast * kept // max(every, 1)


def unsaved_norm(job: Job) -> int:
    """The first norm that sees a gradient has an input that needs none; a frozen one saves nothing at all.

    With checkpointing the input of an adapted model is made to need one (transformers, enable_input_require_grads).
    """
    made = job.census.adapters > 0 and bool(job.run.training.gradient_checkpointing)
    if job.whole or job.census.embedding or made or not job.census.depth:
        return 0
    if job.arithmetic.fused:
        return norm_bytes(job.facts, job.arithmetic, learns=False) * job.tokens if job.census.adapters else 0
    norms = 2 if job.facts.traits.parallel else 1
    return norms * (4 * job.facts.hidden + (4 if job.census.adapters else 0)) * job.tokens
