"""Logits and loss: on a large vocabulary the peak of every job with few trained weights."""

from conf.constants import LOSS_CHUNK
from conf.kernels import LOGITS
from conf.schema import Run
from launcher.facts.model import ModelFacts
from launcher.memory.step.activations import arithmetic_of, last_state_element
from launcher.memory.weights.dtypes import Storage


def plain_forward(facts: ModelFacts, storage: Storage, tokens: int) -> int:
    """Logits, their fp32 copy and the log-softmax; Gemma 2 keeps the logits of before the soft cap (transformers/loss/loss_utils.py)."""
    logits = storage.compute * tokens * facts.vocab
    copies = (8 if storage.compute == 2 else 4) * tokens * facts.vocab
    return logits + copies + (logits if facts.logit_softcap else 0)


def plain_backward(facts: ModelFacts, storage: Storage, tokens: int) -> int:
    """fp32 log-softmax and the gradients of both its sides; the logits are gone by then."""
    return 12 * tokens * facts.vocab + (storage.compute * tokens * facts.vocab if facts.logit_softcap else 0)


def fused_chunk(facts: ModelFacts, tokens: int) -> int:
    """Tokens whose logits exist at a time: a power of two (liger_kernel/ops/fused_linear_cross_entropy.py)."""
    chunks = -(-facts.vocab // facts.hidden)
    return 1 << (-(-tokens // chunks) - 1).bit_length()


def fused_forward(facts: ModelFacts, storage: Storage, tokens: int, head: int, residual: int) -> int:
    """Logits of one chunk beside both gradients; autocast copies a transposed head for every chunk, beside the copy that it keeps."""
    chunk = storage.compute * fused_chunk(facts, tokens) * facts.vocab
    return chunk + fused_gradients(facts, storage, tokens, head, residual) + (storage.compute * head if storage.autocast else 0)


def fused_gradients(facts: ModelFacts, storage: Storage, tokens: int, head: int, residual: int) -> int:
    """Of the states and of a head that learns; made in the forward pass (liger_kernel/ops/fused_linear_cross_entropy.py 0.8.5)."""
    return residual * tokens * facts.hidden + storage.gradient * head


def own_chunk(facts: ModelFacts) -> int:
    """Tokens whose logits exist at a time under training.kernels=fused (trainers/kernels/loss.py)."""
    return max(1, LOGITS // facts.vocab)


def own_logits(facts: ModelFacts, storage: Storage, tokens: int) -> int:
    return storage.compute * min(tokens, own_chunk(facts)) * facts.vocab


def own_forward(facts: ModelFacts, storage: Storage, tokens: int, head: int, residual: int) -> int:
    """Logits of one chunk, the states as they are multiplied, and both gradients; under autocast the head's is the sum of fp32 products."""
    states = (1 + (residual != storage.compute)) * storage.compute * tokens * facts.hidden
    return own_logits(facts, storage, tokens) + states + storage.gradient * head * (2 if storage.autocast else 1)


def own_backward(facts: ModelFacts, storage: Storage, tokens: int, head: int, residual: int) -> int:
    """The states' gradient, times the one that comes in, and that in their own dtype; the head's is multiplied in place."""
    cast = residual if residual != storage.compute else 0
    return (2 * storage.compute + cast) * tokens * facts.hidden + storage.gradient * head


def chunked_forward(facts: ModelFacts, tokens: int, kept: int) -> int:
    """fp32 logits of one chunk and their log-softmax: those of the product are gone by then."""
    return 8 * min(tokens, LOSS_CHUNK) * facts.vocab + kept


def chunked_backward(facts: ModelFacts, storage: Storage, tokens: int, head: int, kept: int) -> int:
    """The last chunk, computed again, beside the sum of the head's gradients; then its product is added to that sum, which makes a third
    (csrc/autograd/input_buffer.cpp; under autocast the copy of the head has gone by then)."""
    size = min(tokens, LOSS_CHUNK)
    chunk, earlier = size * facts.vocab, kept - kept * size // tokens
    if not earlier:
        return kept + max(12 * chunk, storage.compute * (chunk + head))
    summed = storage.compute * ((chunk + 2 * head) if storage.autocast else max(chunk + 2 * head, 3 * head))
    return kept + earlier + max(12 * chunk + storage.compute * head, summed)


def loss_bytes(run: Run, facts: ModelFacts, storage: Storage, tokens: int, head: int) -> tuple[int, int]:
    """At the end of the forward pass, and at the start of the backward pass."""
    residual = last_state_element(facts, arithmetic_of(run, facts, storage))
    if run.training.loss == "fused" and run.training.kernels == "fused":
        return own_forward(facts, storage, tokens, head, residual), own_backward(facts, storage, tokens, head, residual)
    if run.training.loss == "fused":
        return fused_forward(facts, storage, tokens, head, residual), fused_gradients(facts, storage, tokens, head, residual)
    if run.training.loss == "chunked":
        kept = residual * tokens * facts.hidden  # the states, to compute every chunk again
        return chunked_forward(facts, tokens, kept), chunked_backward(facts, storage, tokens, head, kept)
    return plain_forward(facts, storage, tokens), plain_backward(facts, storage, tokens)


def evaluation_loss_bytes(run: Run, facts: ModelFacts, storage: Storage, tokens: int) -> int:
    """Of a forward pass without gradients; liger computes whole logits outside of training, trainers/kernels/loss.py never."""
    if run.training.loss == "fused" and run.training.kernels == "fused":
        return own_logits(facts, storage, tokens)
    return plain_forward(facts, storage, min(tokens, LOSS_CHUNK) if run.training.loss == "chunked" else tokens)
