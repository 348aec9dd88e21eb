"""The trainers of rm, dpo, kto, orpo and simpo: TRL's own loss over padded rows or, where texts are laid end to end, that of `measure`."""

from collections import defaultdict
from typing import Any

import torch
from torch import Tensor, nn

from trainers.stages.shared.evaluation import Evaluating, Fraction, means_of
from trainers.stages.shared.texts import TEXTS

# TRL's names of what a step logs, by ours.
LOGGED = {
    "reward_chosen": "rewards/chosen",
    "reward_rejected": "rewards/rejected",
    "reward_margin": "rewards/margins",
    "reward_accuracy": "rewards/accuracies",
    "logp_chosen": "logps/chosen",
    "logp_rejected": "logps/rejected",
    "log_odds": "log_odds_chosen",
    "nll_loss": "nll_loss",
    "positive_kl": "kl",
}


class Comparing(Evaluating):
    """Before a trainer of TRL in the list of bases. What a batch is measured by in an evaluation is also its loss in training: the same formulas."""

    logged = LOGGED
    step: tuple[int, int] | None = None  # rows and micro-batches of the present optimizer step, where it is known

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: torch.device) -> Any:
        batches, items = super().get_batch_samples(epoch_iterator, num_batches, device)
        self.step = (sum(map(rows_in, batches)), len(batches))
        return batches, items

    def loss_of(self, parts: dict[str, Fraction], weight: float = 1.0) -> Tensor:
        """The loss of one micro-batch of this rank, of which each row weighs `weight`."""
        return mean(parts["loss"]) * weight

    def compute_loss(self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None) -> Any:
        weight = self.weight_of(inputs)
        if TEXTS not in inputs:
            loss: Tensor = super().compute_loss(model, inputs, num_items_in_batch=num_items_in_batch) * weight
        else:
            parts = self.measure(model, inputs)
            self.note(parts)
            loss = self.loss_of(parts, weight).float()
        return (loss, None) if return_outputs else loss

    def weight_of(self, inputs: dict[str, Any]) -> float:
        """transformers takes the mean of the micro-batches of a step, and the last one of the data may be smaller: here every row weighs the same."""
        if self.step is None:
            return 1.0
        rows, batches = self.step
        return rows_in(inputs) * batches / rows

    def note(self, parts: dict[str, Fraction]) -> None:
        """Kept until the next log, on the device: a step that is not logged waits for nothing."""
        noted = self.__dict__.setdefault("noted", defaultdict(list))
        for name in self.logged.keys() & parts.keys():
            noted[name].append(Fraction(*(each.detach().double().sum() for each in parts[name])))

    def log(self, logs: dict[str, float], *arguments: Any, **keywords: Any) -> None:
        noted = self.__dict__.pop("noted", {}) if "loss" in logs else {}
        means = means_of({name: Fraction(*map(torch.stack, zip(*noted[name], strict=True))) for name in sorted(noted)})
        super().log({**logs, **{self.logged[name]: value for name, value in means.items()}}, *arguments, **keywords)

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Nothing here reads transformers' count, which looks for the tokens under their own name."""
        return 0 if TEXTS in inputs else int(super().floating_point_ops(inputs))


class LearningTokens(Comparing):
    """A loss of two means, one over pairs and one over tokens of chosen texts.

    Each is that of the whole optimizer step on all ranks, as in stage=sft: what a pair and a token weigh does not depend on their micro-batch.
    TRL takes both over a micro-batch, so padded rows have the loss of `measure` too, of the same forward pass.
    """

    shares: Tensor | None = None  # [2] micro-batches of this step on all ranks, over its pairs and over its tokens; None: the means of a micro-batch

    def learned_in(self, batch: dict[str, Any]) -> Tensor | int:
        """Tokens of chosen texts in a batch that the second mean is over."""
        raise NotImplementedError

    def means(self, parts: dict[str, Fraction]) -> tuple[Fraction, Fraction]:
        """The terms of the loss by what they are means over: pairs and tokens."""
        raise NotImplementedError

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: torch.device) -> Any:
        batches, items = super().get_batch_samples(epoch_iterator, num_batches, device)
        pairs, learned = sum(map(pairs_in, batches)), sum(self.learned_in(batch) for batch in batches)
        counted = torch.stack([torch.as_tensor(count, dtype=torch.float64).to(device) for count in (len(batches), pairs, learned)])
        passes, *counts = self.accelerator.gather(counted.unsqueeze(0)).sum(0)
        self.shares = passes / torch.stack(counts)
        return batches, items

    def compute_loss(self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None) -> Any:
        """transformers divides it by the micro-batches of this rank, and the ranks take the mean of their gradients."""
        parts = self.measure(model, inputs)
        self.note(parts)
        terms = self.means(parts)
        if self.shares is None:
            loss = sum(mean(term) for term in terms)
        else:
            loss = sum(term.totals.sum() * share for term, share in zip(terms, self.shares, strict=True))
        return (loss.float(), None) if return_outputs else loss.float()


def rows_in(batch: dict[str, Any]) -> int:
    """Texts in a batch, padded or laid end to end."""
    found = batch["lengths"] if TEXTS in batch else batch["chosen_input_ids"] if "chosen_input_ids" in batch else batch["input_ids"]
    return len(found)


def pairs_in(batch: dict[str, Any]) -> int:
    """Of a batch whose two sides are laid end to end, or padded by themselves (shared/pairs.py)."""
    return rows_in(batch) // 2 if TEXTS in batch else rows_in(batch)


def mean(part: Fraction) -> Tensor:
    return part.totals.sum() / part.counts.sum()
