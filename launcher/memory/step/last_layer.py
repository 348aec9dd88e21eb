"""The last layer's forward pass and the last norm's backward pass: peaks where few or no logits stand above them."""

from launcher.facts.model.trace import Trace
from launcher.memory.job import Job
from launcher.memory.step.activations import fused_gate, mlp_width
from launcher.memory.step.column_sums import column_sum_bytes
from launcher.memory.step.dora import forward_bytes, weight_norm_terms
from launcher.memory.step.experts import routed_copies, unpacked_bytes
from launcher.memory.step.fully_sharded import by_groups
from launcher.memory.step.fused_layer import forward_terms, norm_gradients
from launcher.memory.step.layer_adapters import INT8_PRODUCT, adapts_closing, closing_terms, float_copies, int8, shares_inputs
from launcher.memory.step.recomputation import last_again, of_layer
from launcher.memory.step.saved import final_norm_bytes, held_mask_bytes, saved_term
from launcher.memory.step.step_phases import cast_terms, lower_casts
from launcher.memory.step.traced_moments import largest, passing_bytes
from launcher.memory.terms import Phase, Term, Terms, total
from launcher.memory.weights.resident import accumulates, made_gradient_term, waiting_head_terms


def last_layer_phases(job: Job, alive: Terms) -> tuple[Phase, ...]:
    """With checkpointing nothing of the layer is kept but its input; without, all that it keeps is there when its last adapter runs."""
    if job.trace is not None:
        return traced_phases(job, job.trace, alive)
    saved = saved_term(job)
    below = Term(saved.name, saved.bytes - final_norm_bytes(job), "without the last norm")
    size = forward_layer_bytes(job, job.tokens) if last_again(job) else last_adapter_bytes(job)
    plain = (Term("forward pass of the layer", size, "MLP, adapters' output and residual stream"), *weight_norm_terms(job))
    layer = forward_terms(of_layer(job, last_again(job))) if job.arithmetic.fused else plain
    norm = Term("norm gradients", last_norm_bytes(job), "of the last norm, in fp32; of fused kernels in its dtype")
    return (
        Phase("forward: last layer", (*alive, below, *cast_terms(job), *layer)),
        *magnitude_phases(job, (*alive, below, *cast_terms(job))),
        Phase("backward: loss, last norm", (*alive, below, *lower_casts(job), *head_gradient(job), norm)),
    )


def traced_phases(job: Job, trace: Trace, alive: Terms) -> tuple[Phase, ...]:
    return (
        Phase("forward: last layer", (*alive, *largest(job, trace.forward))),
        Phase("backward: loss, last norm", (*alive, *head_gradient(job), *largest(job, trace.norm))),
    )


def head_gradient(job: Job) -> Terms:
    """It exists by then; where several passes accumulate it is counted already, and FSDP2's groups count it in their buffers."""
    if by_groups(job):
        return ()
    return waiting_head_terms(job) or (() if accumulates(job) else (made_gradient_term(job, job.census.head),))


def magnitude_phases(job: Job, alive: Terms) -> tuple[Phase, ...]:
    """Of DoRA, where nothing that a layer computes is kept."""
    size = forward_bytes(job) if last_again(job) else 0
    stream = stream_bytes(job) * job.facts.hidden * job.tokens
    return (Phase("forward: last layer's magnitudes", (*alive, Term("forward pass of the layer", size + stream, "up's products"))),) if size else ()


def last_norm_bytes(job: Job) -> int:
    """RMSNorm has its input, four products of it and their sum, and before those the sum over tokens for its gain, if that learns; torch's LayerNorm
    has its input and that one's gradient."""
    if job.arithmetic.fused:
        return norm_gradients(job)
    states = job.facts.hidden * job.tokens
    if job.facts.layer_norm:
        return 2 * job.arithmetic.residual * states
    sums = column_sum_bytes(job.tokens, job.facts.hidden) if job.gpu and job.whole else 0
    return max(6 * 4 * states, 5 * job.arithmetic.residual * states + sums)


def forward_layer_bytes(job: Job, tokens: int) -> int:
    """At the MLP's product: its factors and itself. At an adapter of its inner values: what the base gave, the adapter's scaled output and their sum,
    beside the activation that is done, and PEFT's fp32 copy of the input (tuners/lora/layer.py)."""
    if job.trace is not None:
        return passing_bytes(job, job.trace, tokens)
    inner = inner_widths(job) * mlp_width(job.facts)
    return (inner + stream_bytes(job) * job.facts.hidden) * tokens + expert_forward(job) * tokens // job.tokens


def stream_bytes(job: Job) -> int:
    """Per element: the residual stream, its norm, and PEFT's copy of that."""
    arithmetic = job.arithmetic
    return arithmetic.residual + arithmetic.element + (4 if job.census.adapters > 0 and arithmetic.casts_adapted else 0)


def inner_widths(job: Job) -> int:
    """Bytes per inner value of the MLP; an 8-bit product takes more than what its adapter then adds."""
    element, adapted, fused = job.arithmetic.element, job.census.adapters > 0, fused_gate(job.facts)
    widths = (6 if adapted else 4) if fused else (4 if adapted else 3)
    product = INT8_PRODUCT * (2 if fused else 1) + (0 if fused else element)
    dropped = 2 * element + float_copies(job) + 1 if float_copies(job) > 4 else 0
    return max(element * widths, product if int8(job) else 0, dropped)


def expert_forward(job: Job) -> int:
    """Routed copies of the tokens: their gathered inputs with the inner values, or with the outputs, weighted and in order; of packed experts
    also gate and up beside the matrices that are unpacked."""
    if not job.facts.mixture:
        return 0
    facts, copies = job.facts, routed_copies(job)
    plain = copies * max(4 * facts.hidden, facts.hidden + 4 * facts.intermediate)
    opening = unpacked_bytes(job, opens=True)
    return max(plain, copies * (facts.hidden + 2 * facts.intermediate) + opening) if opening else plain


def last_adapter_bytes(job: Job) -> int:
    """Of the MLP's last matrix: its product with PEFT's fp32 copy, the embedding, the layer's input, the residual stream and a norm's output that
    nothing keeps; beside them what the base gave, the adapter and its scaled answer, or before those what a quantised base makes of its input."""
    if not job.census.adapters:
        return 0
    arithmetic, closing = job.arithmetic, adapts_closing(job)
    inner = 0 if closing and shares_inputs(job) else arithmetic.element
    copy = float_copies(job)
    stream = (3 if shares_inputs(job) else 4) * arithmetic.residual * job.facts.hidden
    answers = 3 * arithmetic.element * job.facts.hidden * job.tokens if closing else 0
    product = ((inner + copy) * mlp_width(job.facts) + stream) * job.tokens
    return product + max(answers, total(closing_terms(job))) + held_mask_bytes(job)
