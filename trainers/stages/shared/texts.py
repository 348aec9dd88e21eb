"""Prompts with their answers laid end to end, and what a model says of them, without logits of prompts or padding: rm, dpo, kto, orpo and simpo.

A batch holds `texts`, the keywords of the model's forward pass, and what is needed to sort its answers by text. Beside the names of
trainers/kernels/rows.py these are `places` [targets], the tokens from which something is read, counted over the whole batch, and `targets` [targets],
the tokens that follow them. All is counted where batches are made, so that no step waits for the GPU.
"""

from collections.abc import Callable, Sequence
from functools import wraps
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput

from conf.constants import LOSS_CHUNK
from conf.kernels import FILLED
from conf.schema import Run
from trainers.data.rows.tokens import MASKED
from trainers.kernels.rows import joined_batch

Text = tuple[list[int], list[int]]  # prompt and answer
TEXTS = "texts"


def joined_texts(run: Run, texts: Sequence[Text], prompts_of: int = 0) -> dict[str, Any]:
    """What the model is to say of the tokens of each answer, and of the first `prompts_of` texts also of their prompts' tokens.

    `counts`: targets of each text; `answers`: those of them in its answer; `lengths` [texts]: tokens of each answer.
    The first token of a text follows none.
    """
    skipped = [1 if number < prompts_of else max(1, len(prompt)) for number, (prompt, _) in enumerate(texts)]
    rows = [prompt + answer for prompt, answer in texts]
    learned = [range(skip, len(row)) for skip, row in zip(skipped, rows, strict=True)]
    batch = laid_end_to_end(run, rows)
    places = [begin + place - 1 for begin, those in zip(begins(rows), learned, strict=True) for place in those]
    batch["places"] = torch.tensor(places)
    batch["targets"] = torch.tensor([row[place] for row, those in zip(rows, learned, strict=True) for place in those])
    return {
        TEXTS: batch,
        "counts": [len(those) for those in learned],
        "answers": [min(len(answer), len(row) - 1) for (_, answer), row in zip(texts, rows, strict=True)],
        "lengths": torch.tensor([len(answer) for _, answer in texts]),
    }


def joined_ends(run: Run, texts: Sequence[Text]) -> dict[str, Any]:
    """What the model is to say of the last token of each text: a score. `lengths` [texts]: tokens of each text."""
    rows = [prompt + answer for prompt, answer in texts]
    ends = [begin + len(row) - 1 for begin, row in zip(begins(rows), rows, strict=True)]
    lengths = torch.tensor([len(row) for row in rows])
    return {TEXTS: {**laid_end_to_end(run, rows), "places": torch.tensor(ends)}, "lengths": lengths}


def begins(rows: Sequence[list[int]]) -> list[int]:
    return list(accumulate((len(row) for row in rows), initial=0))[:-1]


def laid_end_to_end(run: Run, rows: Sequence[list[int]]) -> dict[str, Any]:
    unlearned = [{"input_ids": row, "labels": [MASKED] * len(row)} for row in rows]
    batch: dict[str, Any] = joined_batch(unlearned, run.data.cutoff, FILLED if run.node.gpus else 1)
    del batch["labels"]
    return batch


def answer_at_places(model: PreTrainedModel, head: Callable[[], nn.Module], loss: str = "plain") -> None:
    """Give `model` a forward pass that computes the head at `places` alone; without them, as in generation, its own one runs.

    Its `logits` are then the log-probabilities of `targets` [targets] in fp32, or without targets the head's own product in fp32.
    The model must compute its logits by its head alone. `loss`: as training.loss, plain or chunked.
    """
    whole = model.forward

    @wraps(whole)
    def forward(*args: Any, places: Tensor | None = None, targets: Tensor | None = None, **keywords: Any) -> Any:
        if places is None:
            return whole(*args, **keywords)
        states = states_at(places, model.base_model(*args, **keywords).last_hidden_state)
        if targets is None:
            return CausalLMOutput(logits=head()(states).float())
        size = LOSS_CHUNK if loss == "chunked" else max(1, len(targets))
        parts = zip(states.split(size), targets.split(size), strict=True)
        compute = log_probabilities if size >= len(targets) else computed_again
        return CausalLMOutput(logits=torch.cat([compute(head(), *part) for part in parts]))

    model.forward = forward


def states_at(places: Tensor, hidden: Tensor) -> Tensor:
    """[places, width], of the last hidden states of any shape over tokens."""
    return hidden.reshape(-1, hidden.shape[-1]).index_select(0, places)


def log_probabilities(head: nn.Module, states: Tensor, targets: Tensor) -> Tensor:
    return -functional.cross_entropy(head(states).float(), targets, reduction="none")


def computed_again(head: nn.Module, states: Tensor, targets: Tensor) -> Tensor:
    """The logits of one chunk, which are computed again for the backward pass."""
    found: Tensor = checkpoint(log_probabilities, head, states, targets, use_reentrant=False)
    return found


def target_logps(model: nn.Module, batch: dict[str, Any]) -> tuple[Tensor, ...]:
    """The log-probabilities of the targets of each text, each [counts] in fp64: of a sum of -200 in fp32 the fifth decimal is lost."""
    logps: Tensor = model(**batch[TEXTS]).logits
    return logps.double().split(batch["counts"])


def answer_logps(model: nn.Module, batch: dict[str, Any]) -> Tensor:
    """Summed log-probability of each answer, [texts], in fp64."""
    return torch.stack([logps.sum() for logps in of_answers(target_logps(model, batch), batch)])


def of_answers(logps: Sequence[Tensor], batch: dict[str, Any]) -> list[Tensor]:
    """Those of the targets that lie in answers, of each text."""
    return [each[len(each) - count :] for each, count in zip(logps, batch["answers"], strict=True)]


def means_of_pairs(model: nn.Module, batch: dict[str, Any], learns: bool) -> tuple[Tensor, Tensor, None, None, Tensor]:
    """In place of concatenated_forward of TRL's ORPO and CPO trainers: the mean log-probability of chosen and of rejected answers, each [pairs], no
    logits, and where it `learns` from them the mean loss over the targets of chosen texts."""
    logps = target_logps(model, batch)
    chosen, rejected = torch.stack([each.mean() for each in of_answers(logps, batch)]).chunk(2)
    loss = -torch.cat(logps[: len(chosen)]).mean() if learns else chosen.new_zeros(())
    return chosen, rejected, None, None, loss
