"""The head and the loss of a step, and a batch of an evaluation."""

from conf.stages import stage_row
from launcher.memory.job import Job
from launcher.memory.step.activations import Batch, mlp_width
from launcher.memory.step.column_sums import column_sum_bytes
from launcher.memory.step.saved import saved_term
from launcher.memory.step.stage_loss import LossBytes, evaluation_bytes_of, loss_bytes_of
from launcher.memory.step.step_phases import lower_casts
from launcher.memory.step.traced_moments import passing_bytes
from launcher.memory.terms import Phase, Term, Terms
from launcher.memory.weights.resident import module_terms

LOSS_SOURCES = {
    "plain": "logits in compute dtype and fp32, log-softmax, gradients",
    "chunked": "the plain loss of one chunk of tokens at a time",
    "fused": "liger-kernel: one chunk of logits",
}


def head_phases(job: Job, alive: Terms) -> tuple[Phase, ...]:
    """Where that gradient is a moment of its own: the other losses sum it up chunk by chunk."""
    if not job.census.head or job.run.training.loss != "plain":
        return ()
    return (Phase("backward: head", (*alive, saved_term(job), *lower_casts(job), *module_terms(job, job.head), *head_terms(job))),)


def head_terms(job: Job) -> Terms:
    """The head's gradient is made in the dtype of the product, beside the logits' gradient; autocast then copies it."""
    copies = job.storage.gradient if job.storage.autocast else 0
    logits = 0 if copies else job.storage.compute * job.logit_tokens * job.facts.vocab
    size = (job.storage.compute + copies) * job.census.head + logits + job.arithmetic.residual * job.facts.hidden * job.tokens
    return (Term("gradient of the head", size, "in compute dtype and as it is kept"), *head_bias_terms(job))


def head_bias_terms(job: Job) -> Terms:
    """The gradient of a head's bias is a sum over tokens."""
    biased = any(module.kind == "head" and module.parameters > module.inputs * module.outputs > 0 for module in job.facts.modules)
    size = column_sum_bytes(job.logit_tokens, job.facts.vocab) if job.gpu and biased else 0
    return (Term("sums for a bias", size, "of the head (ATen/native/cuda/Reduce.cuh)"),) if size else ()


def loss_terms(job: Job) -> tuple[Term, Term]:
    found, source = logits_of(job), LOSS_SOURCES[job.run.training.loss]
    return Term("logits and loss", found.model, source), Term("logits and loss", found.backward, source)


def logits_of(job: Job) -> LossBytes:
    return loss_bytes_of(job.run, job.facts, job.storage, job.batch, job.census.head)


def evaluation_term(job: Job) -> Term:
    """Forward without gradients."""
    batch = Batch(job.run.evaluation.micro_batch * stage_row(job.run.stage.name).sequences, job.batch.length, job.batch.masked)
    loss = evaluation_bytes_of(job.run, job.facts, job.storage, batch)
    return Term("evaluation batch", loss + layer_stream(job, batch.tokens), "logits in compute dtype and fp32, log-softmax; one layer")


def layer_stream(job: Job, tokens: int) -> int:
    """Of one layer at a time, where nothing is saved for a backward pass."""
    if job.trace is not None:
        return passing_bytes(job, job.trace, tokens)
    return job.arithmetic.element * (4 * job.facts.hidden + 3 * mlp_width(job.facts)) * tokens
