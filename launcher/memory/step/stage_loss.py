"""Logits of the stages whose losses come from log-probabilities: TRL 1.12 over fp32 logits (trainers/stages/shared/preferences.py), and our ppo."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from conf.constants import LOSS_CHUNK
from conf.schema import Dpo, Run, Simpo
from conf.stages import Loss, compares_joined, stage_row
from launcher.facts.model import ModelFacts
from launcher.memory.stages import answer_length
from launcher.memory.step.activations import Batch
from launcher.memory.step.loss import evaluation_loss_bytes, loss_bytes
from launcher.memory.weights.dtypes import Storage

FLOAT = 4
ENTROPY_ROWS = 128  # trl/trainer/utils.py, entropy_from_logits: tokens whose distribution exists at a time
DISTRIBUTION = 3  # log-probabilities, probabilities and their product


@dataclass(frozen=True)
class LossBytes:
    """Tensors over the vocabulary, at three moments."""

    model: int  # the model's forward pass returns
    outside: int  # the loss and its metrics are computed from what it returned; 0: it returned the loss
    backward: int  # the gradient of the logits is made


def loss_bytes_of(run: Run, facts: ModelFacts, storage: Storage, batch: Batch, head: int) -> LossBytes:
    kind = stage_row(run.stage.name).loss
    if compares_joined(run) and kind is not Loss.SCORE:
        return joined_bytes(run, facts, storage, batch, head)
    if kind in (Loss.NEXT_TOKEN, Loss.SCORE):
        forward, backward = loss_bytes(run, facts, storage, batch.tokens, head)
        return LossBytes(forward, 0, backward)
    read = read_batch(run, batch)
    logits = float_logits(facts, answered(read) if answer_length(run) else read)
    backward = log_probability_backward(logits, read) + waiting(run, logits)
    if kind is Loss.PPO:
        return LossBytes(ppo_logits(facts, storage, read), 0, backward)
    return LossBytes(returned_logits(facts, storage, read), OUTSIDE[kind](run, facts, read), backward)


def joined_bytes(run: Run, facts: ModelFacts, storage: Storage, batch: Batch, head: int) -> LossBytes:
    """trainers/stages/shared/texts.py: the log-probabilities of all answers at once or in chunks, as a next-token loss; nothing leaves the model.

    Every token is taken for one of an answer. The head's product is gone when the log-softmax is made, since no output holds it.
    """
    forward, backward = loss_bytes(run, facts, storage, batch.tokens, head)
    return LossBytes(forward if run.training.loss == "chunked" else 2 * float_logits(facts, batch), 0, backward)


def read_batch(run: Run, batch: Batch) -> Batch:
    """The tokens whose logits are made: all, or of answers that the policy wrote those and one before (logits_to_keep)."""
    length = answer_length(run)
    return replace(batch, length=length + 1) if length else batch


def answered(read: Batch) -> Batch:
    """Each token of an answer is foretold by the one before it."""
    return replace(read, length=read.length - 1)


def evaluation_bytes_of(run: Run, facts: ModelFacts, storage: Storage, batch: Batch) -> int:
    """Of a forward pass without gradients and its loss."""
    kind = stage_row(run.stage.name).loss
    if compares_joined(run) and kind is not Loss.SCORE:
        return reference_bytes(run, facts, storage, batch)
    if kind in (Loss.NEXT_TOKEN, Loss.SCORE):
        return evaluation_loss_bytes(run, facts, storage, batch.tokens)
    if kind in (Loss.DPO, Loss.KTO):
        return reference_bytes(run, facts, storage, batch)  # policy and reference say the same there: a log-probability for each answer
    found = loss_bytes_of(run, facts, storage, batch, 0)
    return max(found.model, found.outside)


def float_logits(facts: ModelFacts, batch: Batch) -> int:
    return FLOAT * batch.tokens * facts.vocab


def returned_logits(facts: ModelFacts, storage: Storage, batch: Batch) -> int:
    """The head's product, and its fp32 copy where it is narrower."""
    return float_logits(facts, batch) + (storage.compute * batch.tokens * facts.vocab if storage.compute < FLOAT else 0)


def log_probability_backward(logits: int, batch: Batch) -> int:
    """trl/trainer/utils.py, selective_log_softmax on fp32: the logits and the gradient of every row, beside them the stack of all rows or,
    before it, of one row its difference to the normaliser, and the exponential of that."""
    return 2 * logits + max(logits, 2 * logits // batch.samples)


def waiting(run: Run, logits: int) -> int:
    """A next-token loss on the chosen half. Where it was computed first its log-softmax waits; where last, the gradient that it gave the logits."""
    if isinstance(run.stage, Dpo):
        return logits if run.stage.sft_weight else 0
    return logits // 2 if learns_chosen(run) else 0


def learns_chosen(run: Run) -> bool:
    return stage_row(run.stage.name).loss is Loss.ORPO or (isinstance(run.stage, (Dpo, Simpo)) and run.stage.sft_weight > 0)


def dpo_outside(run: Run, facts: ModelFacts, batch: Batch) -> int:
    """trl/trainer/dpo_trainer.py, _compute_loss: what the entropy takes, and the log-softmax of a next-token loss."""
    logits = float_logits(facts, batch)
    return logits + entropy_bytes(facts, batch) + (logits // 2 if learns_chosen(run) else 0)


def entropy_bytes(facts: ModelFacts, batch: Batch) -> int:
    """trl/trainer/utils.py, entropy_from_logits: a copy, since the logits are a slice, and the distribution of one chunk of it."""
    return float_logits(facts, batch) + distribution_bytes(facts, batch)


def distribution_bytes(facts: ModelFacts, batch: Batch) -> int:
    return DISTRIBUTION * FLOAT * min(ENTROPY_ROWS, batch.tokens) * facts.vocab


def kto_outside(run: Run, facts: ModelFacts, batch: Batch) -> int:
    """trl/trainer/kto_trainer.py, _compute_loss: the entropy; or the logits by label, and of the answers' tokens again, which may be nearly all."""
    logits = float_logits(facts, batch)
    return logits + max(entropy_bytes(facts, batch), 2 * logits)


def orpo_outside(run: Run, facts: ModelFacts, batch: Batch) -> int:
    """trl/experimental/orpo/orpo_trainer.py, concatenated_forward: shifted logits and log-softmax of the chosen half."""
    return 2 * float_logits(facts, batch)


def simpo_outside(run: Run, facts: ModelFacts, batch: Batch) -> int:
    """trl/experimental/cpo/cpo_trainer.py, concatenated_forward: one row's exponentials, or the chosen half as in orpo."""
    logits = float_logits(facts, batch)
    return 2 * logits if learns_chosen(run) else logits + logits // batch.samples


def grpo_outside(run: Run, facts: ModelFacts, batch: Batch) -> int:
    """trl/trainer/grpo_trainer.py, _get_per_token_logps_and_entropies: the logits, themselves over the temperature, and one chunk's distribution."""
    return float_logits(facts, batch) + float_logits(facts, answered(batch)) + distribution_bytes(facts, answered(batch))


def ppo_logits(facts: ModelFacts, storage: Storage, batch: Batch) -> int:
    """trainers/reinforcement/policy.py, log_probabilities: logits, their fp32 copy and that over the temperature; then one chunk's distribution."""
    logits = float_logits(facts, answered(batch))
    copy = logits if storage.compute < FLOAT else 0
    return storage.compute * batch.tokens * facts.vocab + logits + max(copy, distribution_bytes(facts, answered(batch)))


OUTSIDE: dict[Loss, Callable[[Run, ModelFacts, Batch], int]] = {
    Loss.DPO: dpo_outside,
    Loss.KTO: kto_outside,
    Loss.ORPO: orpo_outside,
    Loss.SIMPO: simpo_outside,
    Loss.GRPO: grpo_outside,
}


def reference_bytes(run: Run, facts: ModelFacts, storage: Storage, batch: Batch) -> int:
    """trainers/stages/shared/preferences.py, completion_logps: logits of all rows, then of one row its answer's and their log-softmax.

    Of texts laid end to end the answers' logits and their log-softmax, in chunks where the loss is.
    """
    if compares_joined(run):
        return 2 * FLOAT * (min(batch.tokens, LOSS_CHUNK) if run.training.loss == "chunked" else batch.tokens) * facts.vocab
    logits = float_logits(facts, batch)
    return max(returned_logits(facts, storage, batch), logits + 2 * logits // batch.samples)
