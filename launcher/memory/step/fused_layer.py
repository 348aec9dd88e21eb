"""What a step of training.kernels=fused makes beside what its layers save: trainers/kernels lists each function's tensors.

liger's backward passes write over what they are given: a norm's over the gradient of its output, SwiGLU's and the rotary embedding's over what they
saved or got. So beside the saved tensors of a layer there is one gradient at a time. A norm whose weight does not learn is torch's own under an
adapter (trainers/kernels/norms.py), and makes a gradient beside that of its output.
"""

from conf.kernels import OFFSET_NORMS
from conf.schema import Lora, Qlora
from launcher.facts.model import ModuleKind
from launcher.memory.job import Job
from launcher.memory.step.activations import CLOSING, fused_gate, in_last_layer, last_part, mlp_adapter_bytes, mlp_bytes, mlp_width
from launcher.memory.step.layer_adapters import INT8_ROWS, INT8_SOURCE, adapted_in_mlp, adapts_closing, dequantised, matrices_of
from launcher.memory.step.layer_backward import Weights, casts, layer_saved, layer_weights, norm_saved
from launcher.memory.step.query_sums import query_sums
from launcher.memory.terms import ONE_LAYER, Moment, Term, Terms, total
from launcher.memory.weights.parameters import adapter_elements, adapter_targets
from launcher.memory.weights.resident import accumulates, fp8_matrices


def fused_moments(job: Job, unsaved: int) -> tuple[Moment, ...]:
    """Of one layer's backward pass, as launcher/memory/step/layer_backward.py has them of the plain layers."""
    weights, learns = learning_elements(job), job.census.trained_layers > 0
    saved = layer_saved(job, learns) - unsaved - shared_input(job, unsaved)
    adapters = mlp_adapter_bytes(job.run, job.facts, job.arithmetic) * job.tokens
    without_mlp = max(
        saved - mlp_bytes(job.facts, job.arithmetic, learns) * job.tokens - adapters - (job.facts.norms_per_layer - 1) * norm_saved(job, learns), 0
    )
    return (
        *((Moment("recomputed layer", 0, recomputed_terms(job, saved, weights, learns)),) if job.run.training.gradient_checkpointing else ()),
        Moment("layer", weights.closing, closing_terms(job, saved, weights, learns)),
        Moment("MLP weights", weights.mlp, opening_terms(job, saved, weights, learns)),
        Moment("attention", weights.opened, attention_terms(job, without_mlp, weights)),
        Moment("norm", weights.layer, stream_gradients(job, 3 if frozen_norms(job) else 2)),
    )


def learning_elements(job: Job) -> Weights:
    """Of one layer, in the order in which they get a gradient."""
    regime = job.run.regime
    if not isinstance(regime, Lora):
        return layer_weights(job)
    parts = [(module, adapter_elements(regime, module)) for module in adapter_targets(regime, job.facts) if in_last_layer(module, job.facts)]
    closing = sum(size for module, size in parts if ".mlp." in module.name and last_part(module) in CLOSING)
    mlp = sum(size for module, size in parts if ".mlp." in module.name)
    output = sum(size for module, size in parts if ".mlp." not in module.name and last_part(module) in CLOSING)
    return Weights(closing, mlp, mlp + output, job.census.layer, 0)


def keeps_product(job: Job, learns: bool) -> bool:
    """Whether the MLP's last matrix keeps its input."""
    return learns or adapts_closing(job)


def to_be_added(job: Job, elements: int) -> Terms:
    """The gradient of one matrix beside that of an earlier pass."""
    size = job.storage.gradient * elements if accumulates(job) and not job.census.adapters else 0
    return (Term("gradient to be added", size, "of one matrix, to that of an earlier pass"),) if size else ()


def shared_input(job: Job, unsaved: int) -> int:
    """With checkpointing the first norm keeps the very tensor that is the layer's checkpoint."""
    return job.arithmetic.residual * job.facts.hidden * job.tokens if job.run.training.gradient_checkpointing and not unsaved else 0


def stream_gradients(job: Job, streams: int) -> Terms:
    """Of the residual stream, `streams` times, and of what a layer answers, where that is narrower."""
    arithmetic = job.arithmetic
    narrow = arithmetic.element if arithmetic.element != arithmetic.residual else 0
    return (Term("gradients of the stream", (streams * arithmetic.residual + narrow) * job.facts.hidden * job.tokens, "and of a layer's answer"),)


def recomputed_terms(job: Job, saved: int, weights: Weights, learns: bool) -> Terms:
    """The forward pass of the layer at the last function that saves: the MLP's last matrix, or SwiGLU."""
    element, hidden = job.arithmetic.element, job.facts.hidden
    unkept = 0 if keeps_product(job, learns) else element * mlp_width(job.facts)
    answer = (unkept + (element + job.arithmetic.residual) * hidden + joined_gate(job)) * job.tokens
    return (
        Term(ONE_LAYER, saved, "what a layer saves per token"),
        Term("forward pass of the layer", answer, "its last answer, and the gradient that waits for it"),
        *int8_rows(job),
        *fp8_terms(job, sum(each.inputs for each in fp8_in_mlp(job, closing=True))),
        *casts(job, weights, 0),
    )


def joined_gate(job: Job) -> int:
    """Bytes a token of gate and up as one projection makes them; its halves are copied for SwiGLU, and their gradients put together again."""
    return 2 * job.arithmetic.element * mlp_width(job.facts) if fused_gate(job.facts) else 0


def int8_rows(job: Job) -> Terms:
    if not (isinstance(job.run.regime, Qlora) and job.run.regime.bits == 8):
        return ()
    return (Term("rows in 8 bits", INT8_ROWS * mlp_width(job.facts) * job.tokens, INT8_SOURCE),)


def fp8_in_mlp(job: Job, closing: bool) -> list[ModuleKind]:
    """Of the last layer."""
    found = [each for each in fp8_matrices(job) if ".mlp." in each.name and in_last_layer(each, job.facts)]
    return [each for each in found if (last_part(each) in CLOSING) == closing]


def fp8_terms(job: Job, width: int) -> Terms:
    """Rows of that many numbers, with one scale each, while their product is made."""
    return (Term("rows in fp8", (width + 4) * job.tokens, "one byte a number, 4 bytes a row (trainers/kernels/fp8.py)"),) if width else ()


def opening_products(job: Job) -> Terms:
    """Of several projections of one input: the product of the second is there beside the sum to which it is added."""
    found = fp8_in_mlp(job, closing=False)
    several = len(found) > 1 and not drops(job)
    product = (Term("product in fp8", job.arithmetic.element * job.facts.hidden * job.tokens, "before it is added to another"),) if several else ()
    return (*fp8_terms(job, max((each.outputs for each in found), default=0)), *product)


def closing_terms(job: Job, saved: int, weights: Weights, learns: bool) -> Terms:
    width = job.arithmetic.element * mlp_width(job.facts)
    joined = joined_gate(job) - (width if keeps_product(job, learns) else 0)
    rounded = total(fp8_terms(job, sum(each.outputs for each in fp8_in_mlp(job, closing=True))))
    inner = max(width * (3 if drops(job) else 1) * job.tokens + rounded, joined * job.tokens)
    return (
        Term(ONE_LAYER, saved, "what a layer saves per token"),
        Term(
            "MLP gradients",
            inner,
            "of the product of its inner values; with dropout, its dropped input and two parts of that gradient; with fp8, rounded rows",
        ),
        *stream_gradients(job, 1),
        *unadapted(job, in_mlp=True),
        *to_be_added(job, weights.closing),
        *casts(job, weights, weights.closing),
    )


def drops(job: Job) -> bool:
    return isinstance(job.run.regime, Lora) and job.run.regime.dropout > 0


def unadapted(job: Job, in_mlp: bool) -> Terms:
    """What bitsandbytes dequantises by itself, in a quantised layer without an adapter."""
    regime = job.run.regime
    adapted: list[ModuleKind] = adapter_targets(regime, job.facts) if isinstance(regime, Lora) else []
    size = dequantised(job, [module for module in matrices_of(job, in_mlp) if module not in adapted])
    return (Term("one dequantised matrix", size, "of a layer without an adapter"),) if size else ()


def forward_terms(job: Job) -> Terms:
    """The last layer's forward pass at the last function that saves: with checkpointing nothing of it is kept, without everything."""
    element, hidden = job.arithmetic.element, job.facts.hidden
    rounded = fp8_terms(job, sum(each.inputs for each in fp8_in_mlp(job, closing=True)))
    inner, answer = (
        element * mlp_width(job.facts),
        (Term("answer of the MLP", element * hidden * job.tokens, "of its last matrix"), *int8_rows(job), *rounded),
    )
    if not job.run.training.gradient_checkpointing:
        return (Term("forward pass of the layer", joined_gate(job) * job.tokens, "gate and up as one projection"), *answer, *unadapted(job, True))
    stream = joined_gate(job) + (element + job.arithmetic.residual) * hidden
    gate = (Term("forward pass of the layer", (stream + 3 * inner) * job.tokens, "gate, up and their product; residual stream and its norm"),)
    closing = (Term("forward pass of the layer", (stream + inner) * job.tokens, "the MLP's product; residual stream and its norm"), *answer)
    return (*max(gate, closing, key=total), *unadapted(job, True))


def frozen_norms(job: Job) -> bool:
    """Whether norms are torch's own."""
    return job.census.adapters > 0 and job.facts.family not in OFFSET_NORMS


def norm_gradients(job: Job) -> int:
    """The gradient of its output, over which liger writes that of its input; torch's own norm and one whose weight is added to 1 make it beside."""
    beside = frozen_norms(job) or job.facts.family in OFFSET_NORMS
    return job.arithmetic.residual * job.facts.hidden * job.tokens * (2 if beside else 1)


def opening_terms(job: Job, saved: int, weights: Weights, learns: bool) -> Terms:
    """The gradients of gate and up lie where these were; the product, where it was kept, has gone. Where both learn, the first of the two has made
    its input's gradient and gone."""
    element, hidden, inner = job.arithmetic.element, job.facts.hidden, job.arithmetic.element * mlp_width(job.facts)
    one_by_one = learns and not fused_gate(job.facts)
    kept = mlp_bytes(job.facts, job.arithmetic, learns) - (1 if one_by_one else 2) * inner
    # autocast's copy of the last matrix and its gradient in 16 bits take what its own gradient will; that one is made when the inner values are gone
    uncast = max(job.storage.compute * weights.widest - (inner + element * hidden) * job.tokens, 0) if job.storage.autocast else 0
    made = element * hidden + (job.arithmetic.residual * hidden if one_by_one else 0)
    return (
        Term(ONE_LAYER, saved - (kept + adapted_product(job)) * job.tokens, "without the MLP's product"),
        Term("MLP gradients", made * job.tokens + uncast, "of its input, and of its largest matrix before the cast"),
        *stream_gradients(job, 1),
        *opening_products(job),
        *to_be_added(job, weights.widest),
        *casts(job, weights, weights.mlp),
    )


def adapted_product(job: Job) -> int:
    """Bytes a token of the product that the adapter of the MLP's last matrix kept."""
    return sum(job.arithmetic.element * each.inputs for each in adapted_in_mlp(job) if last_part(each) in CLOSING)


def attention_terms(job: Job, saved: int, weights: Weights) -> Terms:
    """Flash attention for samples of any length: fp32 sums of the queries' gradient, and gradients of keys and values for every query head
    (ATen/native/transformers/cuda/flash_attn/flash_api.cpp, mha_varlen_bwd)."""
    facts, element = job.facts, job.arithmetic.element
    queries, keys = facts.heads * facts.head_dim, facts.kv_heads * facts.head_dim
    expanded = 2 * element * queries if facts.kv_heads < facts.heads else 0
    work = (2 * queries + 2 * keys) * element + expanded + query_sums(job) + 4 * facts.heads
    return (
        Term(ONE_LAYER, saved, "without its MLP and second norm"),
        Term("attention gradients", work * job.tokens, "of the output, queries, keys and values; fp32 sums"),
        *stream_gradients(job, 1),
        *unadapted(job, in_mlp=False),
        *casts(job, weights, weights.opened),
    )
