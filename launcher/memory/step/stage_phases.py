"""Models and phases that a stage has beside those of next-token training, as terms."""

from conf.schema import Fsdp, Zero
from conf.stages import Loss, stage_row
from launcher.memory.job import Job
from launcher.memory.stages import answer_length, compares, precomputes
from launcher.memory.step.activations import Batch
from launcher.memory.step.head_phases import layer_stream, logits_of
from launcher.memory.step.last_layer import forward_layer_bytes
from launcher.memory.step.stage_loss import FLOAT, answered, float_logits, read_batch, reference_bytes
from launcher.memory.step.step_phases import cast_terms
from launcher.memory.terms import Phase, Term, Terms
from launcher.memory.weights.resident import gathered_terms
from launcher.words import plural

OUTSIDE_SOURCE = "fp32 logits outside of the model, and the copies that metrics make (launcher/memory/step/stage_loss.py, by line of TRL)"
SAMPLING_COPIES = 4  # transformers/generation/utils.py, _sample: next-token logits in fp32, over the temperature, probabilities and their sort


def copy_terms(job: Job) -> Terms:
    """TRL splits a frozen copy under ZeRO-3 and FSDP2 as the model, and keeps it whole elsewhere (trl/models/utils.py, prepare_deepspeed).

    A reward model is whole on every rank (trainers/reinforcement/reward_model.py).
    """
    whole = job.storage.frozen * job.census.base
    reference = Term("reference model", job.copies.reference * whole // job.split.weights, f"frozen, over {plural(job.split.weights, 'rank')}")
    body = job.census.base - (0 if job.facts.tied else job.head)
    reward = Term("reward model", job.copies.reward * job.storage.frozen * body, "frozen, whole on every rank, without an output head")
    return tuple(term for term in (reference, reward) if term.bytes)


def outside_phases(job: Job, alive: Terms) -> tuple[Phase, ...]:
    """Between the model's forward pass and the backward pass."""
    size = logits_of(job).outside
    return (Phase("loss", (*alive, Term("logits and metrics", size, OUTSIDE_SOURCE))),) if size else ()


def reference_phases(job: Job, alive: Terms) -> tuple[Phase, ...]:
    """Of the reference model, or of the base without its adapter; before the policy's forward pass, when nothing of the policy is gathered."""
    if not compares(job.run) or precomputes(job.run) or answer_length(job.run):
        return ()
    size = max(reference_bytes(job.run, job.facts, job.storage, job.batch), layer_stream(job, job.tokens))
    logits = Term("logits of the reference", size, "trainers/stages/shared/preferences.py, completion_logps; or one layer")
    return (Phase("forward: reference", (*alive, *gathered_reference(job), logits)),)


def gathered_reference(job: Job) -> Terms:
    """TRL makes a copy one group of FSDP2 (trl/models/utils.py, prepare_fsdp): until its pass has returned all its weights are whole, and in the one
    piece in which they came. Under ZeRO-3 nothing of a pass without gradients is used again soon."""
    if not isinstance(job.run.sharding, Fsdp):
        return ()
    if not job.copies.reference:
        return gathered_terms(job)
    size = 2 * job.storage.compute * job.census.base if job.split.ranks > 1 else 0
    return (Term("gathered reference", size, "the copy's weights, whole and in one piece"),) if size else ()


def answer_phases(job: Job, resident: Terms) -> tuple[Phase, ...]:
    """Answers are written, all of an optimizer step's at once, and read again micro-batch by micro-batch; there are no gradients then."""
    if not answer_length(job.run):
        return ()
    alive, read = (*resident, *gathered_for_answers(job)), (*resident, *gathered_reference(job))
    casts, written = cast_terms(job), written_batch(job)
    layer = Term("one layer over the prompts", forward_layer_bytes(job, written.tokens), "the first pass of all; every other is over one token each")
    return (
        Phase("generation: prompts", (*alive, *layer_casts(job), cache_term(job, written.length), layer)),
        Phase("generation: answers", (*alive, *casts, cache_term(job, job.batch.length), token_term(job))),
        *read_phases(job, (*read, *casts) if stage_row(job.run.stage.name).loss is Loss.PPO else read),  # grpo's policy does not read its answers
    )


def read_phases(job: Job, alive: Terms) -> tuple[Phase, ...]:
    if not compares(job.run):
        return ()
    size = max(read_bytes(job), layer_stream(job, job.tokens))
    logits = Term("logits", size, "of the answers' tokens, and themselves over the temperature; or one layer")
    return (Phase("generation: log-probabilities", (*alive, logits)),)


def read_bytes(job: Job) -> int:
    found, read = logits_of(job), read_batch(job.run, job.batch)
    rows = FLOAT * read.length * job.facts.vocab  # the exponentials of one answer (trl/trainer/utils.py, selective_log_softmax)
    return max(found.model, float_logits(job.facts, read) + float_logits(job.facts, answered(read)) + rows)


def written_batch(job: Job) -> Batch:
    """Prompts that are answered at once: those of an optimizer step of this rank (GRPO's generation batch; trainers/stages/ppo.py, answer)."""
    return Batch(job.batch.samples * job.run.training.accumulation, job.run.data.cutoff, job.batch.masked)


def layer_casts(job: Job) -> Terms:
    """Before the head is reached."""
    size = job.storage.compute * job.census.cast if job.storage.autocast else 0
    return (Term("autocast copies", size, "of the layers' weights"),) if size else ()


def cache_term(job: Job, length: int) -> Term:
    """transformers/cache_utils.py, DynamicCache: both in the dtype of the keys, which the rotary tables give that of the residual stream."""
    token = 2 * job.facts.layers * job.facts.kv_heads * job.facts.head_dim * job.arithmetic.residual
    return Term("keys and values", token * written_batch(job).samples * length, f"of every layer, {length} tokens of each prompt and answer")


def token_term(job: Job) -> Term:
    """The last token of every answer: attention repeats one layer's keys and values for all heads; then it is sampled."""
    samples, facts = written_batch(job).samples, job.facts
    repeated = 2 * job.arithmetic.element * facts.heads * facts.head_dim * samples * job.batch.length
    sampling = SAMPLING_COPIES * FLOAT * samples * facts.vocab
    return Term("one token of each answer", max(repeated, sampling), "one layer's keys and values, repeated; or the sampling")


def gathered_for_answers(job: Job) -> Terms:
    """ZeRO-3 writes answers with whole weights (trl/models/utils.py, unwrap_model_for_generation; trainers/reinforcement/whole_weights.py)."""
    if not (isinstance(job.run.sharding, Zero) and job.run.sharding.stage == 3):
        return gathered_terms(job)
    size = job.storage.compute * (job.census.base - job.census.quantised)  # quantised ones stay whole at all times
    return (Term("gathered weights", size, "all of them, once for all answers"),)
