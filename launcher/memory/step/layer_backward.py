"""Moments of one layer's backward pass: what of it is still saved, what was made, how many of its weights have a gradient."""

from dataclasses import dataclass

from launcher.memory.job import Job
from launcher.memory.step.activations import (
    CLOSING,
    fused_gate,
    last_part,
    layer_modules,
    mlp_adapter_bytes,
    mlp_bytes,
    mlp_width,
    norm_bytes,
)
from launcher.memory.step.column_sums import column_sum_bytes
from launcher.memory.step.dora import magnitude_moments, recomputed_bytes, weight_norm_terms
from launcher.memory.step.experts import expert_moments, expert_saved, layer_experts, routed_copies, stacked
from launcher.memory.step.layer_adapters import (
    HQQ_COPIES,
    INT8_PRODUCT,
    adapts_closing,
    closing_terms,
    dequantised,
    dequantised_terms,
    float_copies,
    int8,
    matrices_of,
    recomputes_adapters,
    recomputes_gate,
    shares_inputs,
)
from launcher.memory.step.query_sums import query_sums
from launcher.memory.terms import ONE_LAYER, Moment, Term, Terms, total


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
    closing_norm = norm_saved(job, learns) if job.facts.norms_per_layer > 2 else 0
    at_product = saved - closing_norm + unkept_product(job, learns) - routed_copies(job) * job.facts.hidden
    without_mlp = saved - closing_norm - mlp_saved(job, learns)
    return (
        *((Moment("recomputed layer", 0, recompute_terms(job, saved, weights)),) if recomputes_adapters(job) else ()),
        *((Moment("recomputed gate", 0, gate_terms(job, without_mlp)),) if recomputes_gate(job) else ()),
        *((Moment("closing norm", 0, closing_norm_terms(job, saved)),) if closing_norm else ()),
        *(expert_moments(job, saved, learns) if expert_saved(job, learns) else ()),
        *(Moment(f"magnitudes {of}", weights.layer, terms) for of, terms in dora_moments(job, saved, without_mlp, learns)),
        Moment("layer", weights.closing, mlp_terms(job, at_product, weights)),
        Moment("MLP weights", weights.mlp, mlp_weight_terms(job, without_mlp - finished_adapters(job), weights)),
        Moment("attention", weights.opened, attention_terms(job, max(without_mlp + closing_norm - gone_above(job, learns), 0), weights)),
        Moment("norm", weights.layer, norm_terms(job)),
    )


def dora_moments(job: Job, saved: int, without_mlp: int, learns: bool) -> tuple[tuple[str, Terms], ...]:
    adapters = mlp_adapter_bytes(job.run, job.facts, job.arithmetic) * job.tokens
    return magnitude_moments(job, saved, without_mlp - adapters, without_mlp - gone_above(job, learns))


def layer_weights(job: Job) -> Weights:
    """Adapters are small: all of a layer's count from its beginning."""
    learned = job.census.layer
    if not job.census.trained_base:
        return Weights(learned, learned, learned, learned, 0)
    modules = layer_modules(job.facts)
    experts = stacked(job)
    dense = [module for module in modules if module.kind == "linear" and ".mlp." in module.name]
    closing = sum(module.parameters for module in dense if last_part(module) in CLOSING) + experts // 3
    mlp = sum(module.parameters for module in dense) + experts
    output = sum(module.parameters for module in modules if module.kind == "linear" and ".mlp." not in module.name and last_part(module) in CLOSING)
    widest = max([experts - experts // 3 - layer_experts(job), *(module.parameters for module in dense), 0])
    return Weights(*(min(part, learned) for part in (closing, mlp, mlp + output, learned, widest)))


def layer_saved(job: Job, learns: bool) -> int:
    return job.learning_layer if learns else job.frozen_layer + job.merged_experts


def mlp_saved(job: Job, learns: bool) -> int:
    return mlp_bytes(job.facts, job.arithmetic, learns) * job.tokens + expert_saved(job, learns)


def norm_saved(job: Job, learns: bool) -> int:
    return norm_bytes(job.facts, job.arithmetic, learns) * job.tokens


def gone_above(job: Job, learns: bool) -> int:
    """At attention's backward pass: all norms but the layer's first, and what the MLP's adapters kept."""
    adapters = mlp_adapter_bytes(job.run, job.facts, job.arithmetic) * job.tokens
    return (job.facts.norms_per_layer - 1) * norm_saved(job, learns) + adapters


def finished_adapters(job: Job) -> int:
    """What adapters of the MLP kept, when the one projection that makes gate and up is dequantised for its own gradient."""
    return mlp_adapter_bytes(job.run, job.facts, job.arithmetic) * job.tokens if fused_gate(job.facts) else 0


def unkept_product(job: Job, learns: bool) -> int:
    """The gradient of the MLP's product takes the place of the product itself, unless nothing below had a reason to keep that."""
    facts, element = job.facts, job.arithmetic.element
    dense = 0 if learns or job.arithmetic.keeps_inputs or adapts_closing(job) else mlp_width(facts)
    experts = 0 if learns else routed_copies(job) * facts.intermediate
    return element * dense * job.tokens + experts


def casts(job: Job, weights: Weights, done: int) -> Terms:
    """Autocast's copies of the weights of this layer whose gradient is still to come."""
    experts = layer_experts(job)
    finished = done - (experts if done >= weights.mlp else min(experts // 3, done))
    size = job.storage.compute * max(weights.layer - experts - finished, 0)
    return (Term("autocast copies", size, "of this layer's weights, until their gradient is made"),) if job.autocasts and size else ()


def recompute_terms(job: Job, saved: int, weights: Weights) -> Terms:
    """The layer's forward pass is at its last adapter: beside what is saved there are both norms' outputs, the residual stream, the base's output,
    and the MLP's product with the fp32 copy that PEFT makes of it for an fp32 adapter (tuners/lora/layer.py, _cast_input_dtype).

    Where PEFT casts nothing, adapters share these outputs and keep the product themselves.
    """
    arithmetic, width, closing = job.arithmetic, mlp_width(job.facts), adapts_closing(job)
    element = arithmetic.element
    inner = (0 if closing and shares_inputs(job) else element) * width + float_copies(job) * width
    stream = ((2 if shares_inputs(job) else 4) * element + arithmetic.residual + post_norm_bytes(job)) * job.facts.hidden
    return (
        Term(ONE_LAYER, saved, "what a layer saves per token"),
        Term(
            "forward pass of the layer",
            (inner + stream) * job.tokens + recomputed_bytes(job),
            "its values that are not saved, and the gradient that waits for it",
        ),
        *max(closing_terms(job), weight_norm_terms(job), key=total),
        *casts(job, weights, 0),
    )


def post_norm_bytes(job: Job) -> int:
    """Where a norm follows the MLP, its backward pass has begun in fp32 when it finds that it needs the layer again, and that goes on behind the
    last adapter, to its scaled answer (torch/utils/checkpoint.py stops at the last value that is missing)."""
    return 4 + job.arithmetic.element if job.facts.norms_per_layer > 2 else 0


def gate_terms(job: Job, saved: int) -> Terms:
    """At the adapter of a projection that makes gate and up in one: what the base gave, the adapter's scaled output, and their sum."""
    element, residual = job.arithmetic.element, job.arithmetic.residual
    copy = 4 if job.arithmetic.casts_adapted else 0
    product = element * mlp_width(job.facts) * job.tokens if adapts_closing(job) else 0  # kept by the last adapter, which has not run yet
    widest, rows = max(3 * element, INT8_PRODUCT if int8(job) else 0), 1 if int8(job) else 0
    stream = (rows + 2 * residual + (1 if shares_inputs(job) else 2) * element + copy) * job.facts.hidden
    size = (widest * 2 * mlp_width(job.facts) + stream) * job.tokens
    return (
        Term(ONE_LAYER, saved - product, "without its MLP"),
        Term("forward pass of the layer", size, "gate and up, thrice; residual stream, the gradient that waits"),
    )


def mlp_terms(job: Job, saved: int, weights: Weights) -> Terms:
    return (
        Term(ONE_LAYER, saved, "what a layer saves per token"),
        Term("MLP gradients", mlp_gradients(job), "of its inner values and its input; before those, of a dequantised matrix"),
        *casts(job, weights, weights.closing),
    )


def mlp_gradients(job: Job) -> int:
    facts, element = job.facts, job.arithmetic.element
    incoming, inner = element * facts.hidden * job.tokens, element * mlp_width(facts) * job.tokens + routed_copies(job) * facts.intermediate
    if computes_in_floats(job):
        # fp32 gradients of GELU's three parts, or of the base and of its adapter, whose 16 bits are still there; the product that was kept has gone
        parts = 3 * 4 if facts.traits.composed_gelu else 2 * 4 + element
        return 2 * incoming + parts * mlp_width(facts) * job.tokens - inner
    # the gradient of one side of the product, or an adapter's fp32 one of an ungated MLP, beside that of the product
    factor = inner if facts.gated_mlp or (job.arithmetic.casts_adapted and adapts_closing(job)) else 0
    matrix = dequantised(job, [module for module in matrices_of(job, in_mlp=True) if last_part(module) in CLOSING])
    if job.arithmetic.keeps_inputs and job.census.quantised:  # the base's own gradient, made while the product is still there
        return incoming + inner + max(factor + matrix * 2 // HQQ_COPIES, matrix)
    return incoming + inner + max(factor, matrix)


def computes_in_floats(job: Job) -> bool:
    """GELU of Python's operations under autocast, and ungated MLPs of quantised layers whose answers are fp32 there."""
    composed = job.facts.traits.composed_gelu and job.storage.autocast
    return composed or (job.arithmetic.inner == 4 and job.arithmetic.element == 2 and not job.facts.gated_mlp)


def mlp_weight_terms(job: Job, saved: int, weights: Weights) -> Terms:
    """The last of the MLP's weights gets its gradient; autocast makes it in 16 bits and copies it."""
    work = (2 * job.arithmetic.element + job.arithmetic.residual) * job.facts.hidden * job.tokens
    if job.census.quantised:  # of a layer that takes in gate and up at once, both halves
        work += job.arithmetic.element * (2 if fused_gate(job.facts) else 1) * mlp_width(job.facts) * job.tokens
    uncast = job.storage.compute * weights.widest if job.storage.autocast else 0
    return (
        Term(ONE_LAYER, saved, "without its MLP"),
        Term("MLP gradients", work + uncast, "of its input, and of its largest matrix before the cast"),
        *bias_terms(job),
        *dequantised_terms(job, in_mlp=True),
        *casts(job, weights, weights.mlp),
    )


def bias_terms(job: Job) -> Terms:
    """The gradient of a bias is a sum over tokens, the last that a layer of the MLP makes; under autocast that of the weight is not yet copied."""
    biased = [module for module in matrices_of(job, in_mlp=True) if module.parameters > module.inputs * module.outputs]
    if not (job.gpu and job.census.trained_base and biased):
        return ()
    widest = max(biased, key=lambda module: module.outputs)
    uncopied = job.storage.gradient * widest.parameters if job.storage.autocast else 0
    size = column_sum_bytes(job.tokens, widest.outputs) - uncopied
    return (Term("sums for a bias", size, "of its answer's gradient (ATen/native/cuda/Reduce.cuh)"),) if size > 0 else ()


def attention_terms(job: Job, saved: int, weights: Weights) -> Terms:
    facts, arithmetic = job.facts, job.arithmetic
    queries = facts.heads * facts.head_dim
    flash = arithmetic.element * queries + query_sums(job) + (4 * queries if facts.kv_heads < facts.heads else 0)
    scores = (4 + arithmetic.element) * facts.heads * job.batch.length
    work = (scores if job.run.training.attention == "eager" else flash) * job.tokens
    return (
        Term(ONE_LAYER, saved, "without its MLP and second norm"),
        Term("attention gradients", work, "output, fp32 queries and repeated keys and values; eager: scores"),
        *dequantised_terms(job, in_mlp=False),
        *casts(job, weights, weights.opened),
    )


def closing_norm_terms(job: Job, saved: int) -> Terms:
    """Where a norm follows the MLP: four products of its saved input and their sum, beside the gradient of the residual stream."""
    work = (5 * 4 + job.arithmetic.residual) * job.facts.hidden * job.tokens
    return (
        Term(ONE_LAYER, saved, "what a layer saves per token"),
        Term("norm gradients", work, "of the layer's last norm, in fp32"),
    )


def norm_terms(job: Job) -> Terms:
    """transformers' RMSNorm in fp32: its input, four products of it and their sum, beside the gradients that come in and bypass it.

    torch's LayerNorm has a kernel for it: its input, and the gradient of that.
    """
    element, residual = job.arithmetic.element, job.arithmetic.residual
    products = 2 * (4 if job.storage.autocast else residual) if job.facts.layer_norm else 6 * 4
    return (Term("norm gradients", (products + 2 * element + residual) * job.facts.hidden * job.tokens, "of the layer's first norm, in fp32"),)
