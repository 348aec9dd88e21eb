"""Moments of one layer's backward pass: what of it is still saved, what was made, how many of its weights have a gradient."""

from dataclasses import dataclass

from conf.schema import Lora
from launcher.memory.activations import CLOSING, expert_bytes, last_part, layer_modules, mlp_bytes, mlp_width, norm_bytes
from launcher.memory.job import Job
from launcher.memory.parameters import adapter_targets
from launcher.memory.terms import Term, Terms


@dataclass(frozen=True)
class Moment:
    name: str
    gradients: int  # elements of this layer that have one
    terms: Terms


@dataclass(frozen=True)
class Weights:
    """Elements of one layer that learn, in the order in which they get a gradient."""

    closing: int  # of the MLP: its last matrix, the first of the backward pass
    mlp: int
    opened: int  # MLP and the output projection of attention
    layer: int
    widest: int  # the largest matrix of the MLP


def learning_moments(job: Job, unsaved: int) -> tuple[Moment, ...]:
    """Of a layer that holds weights that learn; of the lowest one, `unsaved` bytes of its first norm were never kept."""
    return moments(job, layer_weights(job), learns=job.census.trained_layers > 0, unsaved=unsaved)


def moments(job: Job, weights: Weights, learns: bool, unsaved: int) -> tuple[Moment, ...]:
    saved = layer_saved(job, learns) - unsaved
    without_mlp = saved - mlp_saved(job, learns)
    return (
        *((Moment("recomputed layer", 0, recompute_terms(job, saved, weights)),) if recomputes_adapters(job) else ()),
        Moment("layer", weights.closing, mlp_terms(job, saved + unkept_product(job, learns), weights)),
        Moment("MLP weights", weights.mlp, mlp_weight_terms(job, without_mlp, weights)),
        Moment("attention", weights.opened, attention_terms(job, max(without_mlp - norm_saved(job, learns), 0), weights)),
        Moment("norm", weights.layer, norm_terms(job)),
    )


def layer_weights(job: Job) -> Weights:
    """Adapters are small: all of a layer's count from its beginning."""
    learned = job.census.layer
    if not job.census.trained_base:
        return Weights(learned, learned, learned, learned, 0)
    modules = layer_modules(job.facts)
    experts = sum(module.parameters for module in modules if module.kind == "experts")
    dense = [module for module in modules if module.kind == "linear" and ".mlp." in module.name]
    closing = sum(module.parameters for module in dense if last_part(module) in CLOSING) + experts // 3
    mlp = sum(module.parameters for module in dense) + experts
    output = sum(module.parameters for module in modules if module.kind == "linear" and ".mlp." not in module.name and last_part(module) in CLOSING)
    widest = max([experts - experts // 3, *(module.parameters for module in dense)])
    return Weights(*(min(part, learned) for part in (closing, mlp, mlp + output, learned, widest)))


def layer_saved(job: Job, learns: bool) -> int:
    return job.learning_layer if learns else job.frozen_layer


def mlp_saved(job: Job, learns: bool) -> int:
    return (mlp_bytes(job.facts, job.arithmetic, learns) + expert_bytes(job.facts, job.arithmetic, learns)) * job.tokens


def norm_saved(job: Job, learns: bool) -> int:
    return norm_bytes(job.facts, job.arithmetic, learns) * job.tokens


def unkept_product(job: Job, learns: bool) -> int:
    """The gradient of the MLP's product takes the place of the product itself, unless nothing below had a reason to keep that."""
    facts, element = job.facts, job.arithmetic.element
    dense = 0 if learns or job.arithmetic.keeps_inputs or adapts_closing(job) else mlp_width(facts)
    experts = 0 if learns else routed_width(job)
    return element * (dense + experts) * job.tokens


def adapts_closing(job: Job) -> bool:
    """Whether the MLP's last matrix has an adapter."""
    regime = job.run.regime
    if not isinstance(regime, Lora):
        return False
    return any(".mlp." in module.name and last_part(module) in CLOSING for module in adapter_targets(regime, job.facts))


def routed_width(job: Job) -> int:
    return job.facts.experts_per_token * job.facts.intermediate if job.facts.mixture else 0


def recomputes_adapters(job: Job) -> bool:
    return job.run.training.gradient_checkpointing and job.census.adapters > 0


def casts(job: Job, weights: Weights, done: int) -> Terms:
    """Autocast's copies of the weights of this layer whose gradient is still to come."""
    size = job.storage.compute * max(weights.layer - done, 0)
    return (Term("autocast copies", size, "of this layer's weights, until their gradient is made"),) if job.storage.autocast and size else ()


def recompute_terms(job: Job, saved: int, weights: Weights) -> Terms:
    """The layer's forward pass is at its last adapter: beside what is saved there are both norms' outputs, the residual stream, the base's output,
    and the MLP's product with the fp32 copy that PEFT makes of it for an fp32 adapter (tuners/lora/layer.py, _cast_input_dtype)."""
    element, width = job.arithmetic.element, mlp_width(job.facts)
    inner = (element + (4 if job.arithmetic.casts_adapted and adapts_closing(job) else 0)) * width
    stream = (4 * element + job.arithmetic.residual) * job.facts.hidden
    return (
        Term("one layer, recomputed", saved, "what a layer saves per token"),
        Term("forward pass of the layer", (inner + stream) * job.tokens, "its values that are not saved, and the gradient that waits for it"),
        *casts(job, weights, 0),
    )


def dequantised(job: Job, in_mlp: bool) -> int:
    """bitsandbytes and HQQ multiply in 16 bits: one whole matrix at a time."""
    if not job.census.quantised:
        return 0
    matrices = [module for module in layer_modules(job.facts) if module.kind == "linear" and (".mlp." in module.name) == in_mlp]
    return 2 * max((module.inputs * module.outputs for module in matrices), default=0)


def dequantised_terms(job: Job, in_mlp: bool) -> Terms:
    size = dequantised(job, in_mlp)
    return (Term("one dequantised matrix", size, "bitsandbytes and HQQ multiply in 16 bits"),) if size else ()


def mlp_terms(job: Job, saved: int, weights: Weights) -> Terms:
    facts = job.facts
    inner = mlp_width(facts) + routed_width(job)
    element, tokens = job.arithmetic.element, job.tokens
    factor = element * inner * tokens if facts.gated_mlp else 0  # the gradient of one side of the product, beside that of the product
    work = element * (facts.hidden + inner) * tokens + max(factor, dequantised(job, in_mlp=True))
    return (
        Term("one layer, recomputed", saved, "what a layer saves per token"),
        Term("MLP gradients", work, "of its inner values and its input; before those, of a dequantised matrix"),
        *casts(job, weights, weights.closing),
    )


def mlp_weight_terms(job: Job, saved: int, weights: Weights) -> Terms:
    """The last of the MLP's weights gets its gradient; autocast makes it in 16 bits and copies it."""
    work = (2 * job.arithmetic.element + job.arithmetic.residual) * job.facts.hidden * job.tokens
    uncast = job.storage.compute * weights.widest if job.storage.autocast else 0
    return (
        Term("one layer, recomputed", saved, "without its MLP"),
        Term("MLP gradients", work + uncast, "of its input, and of its largest matrix before the cast"),
        *dequantised_terms(job, in_mlp=True),
        *casts(job, weights, weights.mlp),
    )


def attention_terms(job: Job, saved: int, weights: Weights) -> Terms:
    facts, arithmetic = job.facts, job.arithmetic
    queries = facts.heads * facts.head_dim
    flash = arithmetic.element * queries + 4 * queries * (2 if facts.kv_heads < facts.heads else 1)
    scores = (4 + arithmetic.element) * facts.heads * job.batch.length
    work = (scores if job.run.training.attention == "eager" else flash) * job.tokens
    return (
        Term("one layer, recomputed", saved, "without its MLP and second norm"),
        Term("attention gradients", work, "output, fp32 queries and repeated keys and values; eager: scores"),
        *dequantised_terms(job, in_mlp=False),
        *casts(job, weights, weights.opened),
    )


def norm_terms(job: Job) -> Terms:
    """transformers' RMSNorm in fp32: its input, four products of it and their sum, beside the gradients that come in and bypass it.

    torch's LayerNorm has a kernel for it: its input, and the gradient of that.
    """
    element, residual = job.arithmetic.element, job.arithmetic.residual
    products = 2 * (4 if job.storage.autocast else residual) if job.facts.layer_norm else 6 * 4
    return (Term("norm gradients", (products + 2 * element + residual) * job.facts.hidden * job.tokens, "of the layer's first norm, in fp32"),)
