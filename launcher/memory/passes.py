"""Activations and the work of the forward and backward pass, as terms of a phase."""

from conf.schema import Lora
from launcher.memory.activations import expert_bytes, mlp_bytes, mlp_width, norm_bytes
from launcher.memory.job import Job
from launcher.memory.loss import loss_bytes, plain_forward
from launcher.memory.states import accumulates, gradient_term
from launcher.memory.terms import Term, Terms


def stream_terms(job: Job, layers: int) -> Terms:
    """Inputs of `layers` layers, and the rotary tables."""
    rotary = 2 * job.arithmetic.residual * job.facts.head_dim * job.tokens
    stream = layers * job.arithmetic.residual * job.facts.hidden * job.tokens
    return (Term("layer inputs", stream + rotary, f"{layers} x residual stream, and cos and sin"),)


def lower_layers_terms(job: Job) -> Terms:
    """Without checkpointing: what every layer but the last saved."""
    if job.run.training.gradient_checkpointing:
        return ()
    return (Term("saved activations", saved_layers(job) - last_layer(job), "layers below the last"),)


def saved_layers(job: Job) -> int:
    learning = min(job.census.trained_layers, job.census.depth)
    saved = learning * job.learning_layer if learning else 0
    if job.census.depth > learning:
        saved += (job.census.depth - learning) * job.frozen_layer
    return saved


def saved_term(job: Job) -> Term:
    """What waits for the backward pass when the loss is computed."""
    (stream,) = stream_terms(job, job.census.depth if job.run.training.gradient_checkpointing else 0)
    saved = stream.bytes + final_norm_bytes(job) + mask_bytes(job)
    if job.run.training.gradient_checkpointing:
        return Term("saved activations", saved, f"checkpoints of {job.census.depth} layers, last norm, cos and sin")
    saved += saved_layers(job) + (0 if job.whole else -first_norm_bytes(job))
    if job.arithmetic.residual == 4 and job.storage.compute == 2:
        saved += 4 * job.facts.hidden * job.tokens  # the embedding's output in fp32
    return Term("saved activations", max(saved, 0), f"{job.census.depth} layers, last norm, cos and sin")


def first_norm_bytes(job: Job) -> int:
    """The first norm that sees a gradient has an input that needs none; a frozen one saves nothing at all."""
    return (4 * job.facts.hidden + (4 if job.census.adapters else 0)) * job.tokens if job.census.depth else 0


def final_norm_bytes(job: Job) -> int:
    kept = norm_bytes(job.facts, job.arithmetic, job.whole) + (job.arithmetic.element * job.facts.hidden if job.census.head else 0)
    return kept * job.tokens


def mask_bytes(job: Job) -> int:
    """sdpa takes a boolean mask, eager one in the dtype of the scores (transformers/masking_utils.py)."""
    squares = job.batch.samples * job.batch.length**2
    if job.run.training.attention == "eager":
        return job.arithmetic.element * squares
    return squares if job.batch.masked else 0


def cast_terms(job: Job) -> Terms:
    if not job.storage.autocast:
        return ()
    return (Term("autocast copies", job.storage.compute * (job.census.matrices + job.census.head), "kept until the forward pass ends"),)


def head_cast_terms(job: Job) -> Terms:
    """With checkpointing only the head's copy outlives the forward pass; without, autograd keeps all."""
    if job.run.training.gradient_checkpointing and job.storage.autocast:
        return (Term("autocast copies", job.storage.compute * job.census.head, "the head's, until its backward"),)
    return cast_terms(job)


def last_layer_terms(job: Job) -> Terms:
    """The head's gradient exists; every layer's checkpoint, or all that the layers below saved, is still there."""
    reached = job.census.trained if accumulates(job) else job.census.head
    count = job.census.depth if job.run.training.gradient_checkpointing else 0
    return (gradient_term(job, reached), *stream_terms(job, count), *lower_layers_terms(job))


def first_layer_terms(job: Job) -> Terms:
    """All gradients but those of this layer and of an untied embedding; of the layer, its last matrix has one."""
    census = job.census
    closing = job.facts.hidden * mlp_width(job.facts) if census.trained_base else census.layer
    below = 0 if job.facts.tied else census.embedding
    reached = census.trained if accumulates(job) else census.trained - below - census.layer + min(closing, census.layer)
    return (gradient_term(job, reached), *stream_terms(job, 1))


def loss_terms(job: Job) -> tuple[Term, Term]:
    forward, backward = loss_bytes(job.run, job.facts, job.storage, job.tokens, job.census.head)
    source = "liger-kernel: one chunk of logits" if job.run.training.loss == "fused" else "logits in compute dtype and fp32, log-softmax, gradients"
    return Term("logits and loss", forward, source), Term("logits and loss", backward, source)


def learns(job: Job) -> bool:
    return job.census.trained_layers > 0


def last_layer(job: Job) -> int:
    return job.learning_layer if learns(job) else job.frozen_layer


def layer_work_terms(job: Job) -> Terms:
    facts, element = job.facts, job.arithmetic.element
    inner = mlp_width(facts) + (facts.experts_per_token * facts.intermediate if facts.mixture else 0)
    work = element * (facts.hidden + 2 * inner) * job.tokens
    return (
        Term("one layer, recomputed", last_layer(job) + mask_bytes(job), "what a layer saves per token"),
        Term("MLP gradients", work, "of its inner values and its input"),
        *dequantised_terms(job),
        *dora_terms(job),
    )


def attention_work_terms(job: Job) -> Terms:
    facts, arithmetic = job.facts, job.arithmetic
    freed = mlp_bytes(facts, arithmetic, learns(job)) + expert_bytes(facts, arithmetic) + norm_bytes(facts, arithmetic, learns(job))
    queries = facts.heads * facts.head_dim
    flash = arithmetic.element * queries + 4 * queries * (2 if facts.kv_heads < facts.heads else 1)
    scores = (4 + arithmetic.element) * facts.heads * job.batch.length
    work = (scores if job.run.training.attention == "eager" else flash) * job.tokens
    return (
        Term("one layer, recomputed", last_layer(job) + mask_bytes(job) - freed * job.tokens, "without its MLP and second norm"),
        Term("attention gradients", work, "output, fp32 queries and repeated keys and values; eager: scores"),
    )


def dequantised_terms(job: Job) -> Terms:
    return (
        (Term("one dequantised matrix", 2 * job.census.largest_matrix, "bitsandbytes and HQQ multiply in 16 bits"),) if job.census.quantised else ()
    )


def dora_terms(job: Job) -> Terms:
    """peft, tuners/lora/dora.py: base plus product of the adapters, and its square, to take norms."""
    dora = isinstance(job.run.regime, Lora) and job.run.regime.dora
    return (Term("weight norm of dora", 12 * job.census.largest_matrix, "three fp32 matrices"),) if dora else ()


def evaluation_term(job: Job) -> Term:
    """Forward without gradients; liger computes whole logits outside of training."""
    tokens = job.run.evaluation.micro_batch * job.batch.length
    stream = job.arithmetic.element * (4 * job.facts.hidden + 3 * mlp_width(job.facts)) * tokens
    return Term(
        "evaluation batch", plain_forward(job.facts, job.storage, tokens) + stream, "logits in compute dtype and fp32, log-softmax; one layer"
    )
