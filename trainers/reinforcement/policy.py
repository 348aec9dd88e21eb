"""A policy that also values its answers: from one forward pass, log-probability, entropy and value of each token of an answer."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from trl.trainer.utils import entropy_from_logits, selective_log_softmax

VALUE_HEAD = "value_head"


class Answered(NamedTuple):
    """Each (answers, tokens)."""

    logprobs: Tensor
    entropies: Tensor  # without gradient
    values: Tensor  # of the text before each token


def add_value_head(model: PreTrainedModel, dtype: torch.dtype) -> None:
    """Give `model` a head on its last hidden states, and a forward pass that uses it when it is given `answers`.

    It begins at zero: before anything is learned, every answer is expected to be worth nothing. Saved models do not contain it.
    """
    head = nn.Linear(model.config.get_text_config().hidden_size, 1, dtype=dtype, device=model.device)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    model.add_module(VALUE_HEAD, head)
    model._keys_to_ignore_on_save = {*(model._keys_to_ignore_on_save or ()), f"{VALUE_HEAD}.weight", f"{VALUE_HEAD}.bias"}
    plain = model.forward

    @wraps(plain)  # transformers reads in the signature whether it can request only the last token's logits
    def forward(*args: Any, answers: Tensor | None = None, temperature: float = 1.0, **keywords: Any) -> Any:
        if answers is None:
            return plain(*args, **keywords)
        length = answers.shape[1]
        with inputs_of(model.get_output_embeddings()) as inputs:
            logits = plain(*args, **keywords, logits_to_keep=length + 1, use_cache=False).logits[:, -length - 1 : -1]
        hidden = inputs[-1][:, -length - 1 : -1]
        values = head(hidden.to(head.weight.dtype)).squeeze(-1)
        return Answered(*log_probabilities(logits, answers, temperature), values)

    model.forward = forward


@contextmanager
def inputs_of(module: nn.Module) -> Iterator[list[Tensor]]:
    """What `module` is called with inside: every causal model hands its last hidden states to its output head."""
    seen: list[Tensor] = []
    hook = module.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    try:
        yield seen
    finally:
        hook.remove()


def log_probabilities(logits: Tensor, answers: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """(log-probability, entropy) of each token of `answers`, sampled at `temperature` from `logits` (answers, tokens, vocabulary)."""
    warmed = logits.float() / temperature  # in bf16, ratios of probabilities are exact only to a hundredth
    with torch.no_grad():
        entropies = entropy_from_logits(warmed)
    return selective_log_softmax(warmed, answers), entropies


def reference_log_probabilities(reference: PreTrainedModel, answers: Tensor, temperature: float, inputs: dict[str, Tensor]) -> Tensor:
    length = answers.shape[1]
    logits = reference(**inputs, logits_to_keep=length + 1, use_cache=False).logits[:, -length - 1 : -1]
    return log_probabilities(logits, answers, temperature)[0]
