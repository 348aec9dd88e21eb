"""The evaluation of every stage: each held-out sample counts once, whatever the number of ranks, the micro-batch, packing and sharding.

transformers' own loop (trainer.py 5.23) divides each rank's summed loss by the tokens of all ranks, weighs batches by their samples, and fills up the
last batches with samples that it has seen, some of which it cannot tell from new ones. Here every rank adds up the numerators and the denominators of
its own samples, and at the end the ranks add up their sums: a mean over tokens, pairs or answers is the mean over all of them.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from transformers.trainer_utils import EvalLoopOutput

from conf.committed import faults
from trainers.ranks.agreement import broadcast, on_rank_zero, total
from trainers.ranks.stop import leave_if_asked
from trainers.stages.shared.watched import Watched


class Fraction(NamedTuple):
    """The share that some samples have in a mean: numerators and denominators, both [samples] or both of one number."""

    totals: Tensor
    counts: Tensor

    def nothing(self) -> "Fraction":
        return Fraction(torch.zeros_like(self.totals), torch.zeros_like(self.counts))


class Turn(NamedTuple):
    """The samples of one forward pass of a rank."""

    samples: tuple[int, ...]
    counts: bool  # false: a sample that another rank evaluates, so that all ranks make as many passes


class Batches(Dataset[tuple[Any, bool]]):
    """One batch for each turn, and whether it counts."""

    def __init__(self, rows: Sequence[Any], turns: Sequence[Turn], collate: Callable[[list[Any]], Any]) -> None:
        self.rows, self.turns, self.collate = rows, turns, collate

    def __len__(self) -> int:
        return len(self.turns)

    def __getitem__(self, number: int) -> tuple[Any, bool]:
        turn = self.turns[number]
        return self.collate([self.rows[sample] for sample in turn.samples]), turn.counts


class Evaluating(Watched):
    """Before a trainer of TRL in the list of bases. A stage says what one batch gives (measure), and what follows from all of them (conclude)."""

    begins_at: Path | None = None  # the checkpoint from which this start goes on

    def measure(self, model: nn.Module, batch: Any) -> dict[str, Fraction]:
        """Of one batch, without gradients: the same names for every batch and on every rank."""
        raise NotImplementedError

    def conclude(self, parts: dict[str, Fraction]) -> dict[str, float]:
        """Of all samples of this rank to what is logged, by its name without `eval_`; `loss` is among it. A collective act."""
        return means_of(parts)

    def rows_to_evaluate(self, rows: Any) -> Any:
        return rows

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader[Any]:
        rows = self.rows_to_evaluate(self.eval_dataset if eval_dataset is None else eval_dataset)
        turns = turns_of(len(rows), self.args.per_device_eval_batch_size, self.args.process_index, self.args.world_size)
        return DataLoader(
            Batches(rows, turns, self.data_collator),
            batch_size=None,
            collate_fn=as_it_is,
            num_workers=self.args.dataloader_num_workers,
            pin_memory=self.args.dataloader_pin_memory,
        )

    def evaluation_loop(self, dataloader: DataLoader[Any], *arguments: Any, **keywords: Any) -> EvalLoopOutput:
        """transformers wraps the model, hands out the batches and calls the callbacks; it sees no losses."""
        self.measured: dict[str, list[Fraction]] = {}
        output = super().evaluation_loop(dataloader, *arguments, **keywords)
        joined = {name: Fraction(*map(torch.cat, zip(*parts, strict=True))) for name, parts in self.measured.items()}
        found = {"loss": float("nan"), **self.conclude(joined)}
        return output._replace(metrics={f"eval_{name}": value for name, value in found.items()}, num_samples=len(dataloader.dataset.rows))

    def _evaluate(self, trial: Any, ignore_keys_for_eval: Any, skip_scheduler: bool = False) -> dict[str, float]:
        """transformers compares no evaluation before the first step of a start with the best so far; ours may be one that a stop has cut."""
        metrics: dict[str, float] = super()._evaluate(trial, ignore_keys_for_eval, skip_scheduler=skip_scheduler)
        if skip_scheduler and self.begins_at is not None and self._determine_best_metric(metrics=metrics, trial=trial):
            self.state.best_model_checkpoint = str(self.begins_at)
        return metrics

    def _run_epoch(self, **keywords: Any) -> None:
        """No step where that evaluation has already ended the training (evaluation.patience)."""
        if not self.control.should_training_stop:
            super()._run_epoch(**keywords)

    def _load_best_model(self) -> None:
        """transformers would go on with the last weights where those of the best step are gone.

        Raises:
            ValueError: where they are gone or damaged.
        """
        best = Path(str(self.state.best_model_checkpoint))
        found = broadcast(on_rank_zero(lambda: faults(best), "verifying the best checkpoint"))
        if found:
            raise ValueError(
                f"evaluation.best_at_end: the best checkpoint cannot be used: {found[0]}. Set evaluation.best_at_end=false in a new run, "
                f"or use the weights of another checkpoint."
            )
        super()._load_best_model()

    def prediction_step(self, model: nn.Module, inputs: Any, *_: Any, **__: Any) -> tuple[None, None, None]:
        leave_if_asked()
        batch, counts = inputs
        with torch.no_grad(), self.compute_loss_context_manager():
            found = self.measure(model, self._prepare_input(batch))
        for name, part in found.items():
            exact = Fraction(*(each.detach().double().reshape(-1) for each in part))
            self.measured.setdefault(name, []).append(exact if counts else exact.nothing())
        return None, None, None


def turns_of(samples: int, size: int, rank: int, ranks: int) -> list[Turn]:
    """Of one rank, up to `size` samples each: every sample in one turn of one rank, and on each rank as many turns of as many samples.

    Under ZeRO-3 and FSDP all ranks gather weights in each forward pass, and would wait for a rank that makes none.
    """
    each, rest = divmod(samples, ranks)
    own = range(rank, each * ranks, ranks)
    turns = [Turn(tuple(own[start : start + size]), counts=True) for start in range(0, each, size)]
    if rest:
        turns.append(Turn((each * ranks + rank,), counts=True) if rank < rest else Turn((0,), counts=False))
    return turns


def as_it_is(batch: Any) -> Any:
    return batch


def each(values: Tensor, counted: Tensor | None = None) -> Fraction:
    """One number for each sample, or for those that are `counted`."""
    counts = torch.ones_like(values) if counted is None else counted.to(values)
    return Fraction(torch.where(counts > 0, values, 0), counts)


def means_of(parts: dict[str, Fraction]) -> dict[str, float]:
    """Over the samples of all ranks; what no sample counts for is left out. Numerators and denominators are added in fp64."""
    if not parts:
        return {}
    sums = total(torch.stack([torch.stack([part.totals.sum(), part.counts.sum()]) for part in parts.values()]))
    return {name: numerator / denominator for name, (numerator, denominator) in zip(parts, sums.tolist(), strict=True) if denominator}


def of_pairs(chosen: Tensor, rejected: Tensor) -> dict[str, Fraction]:
    """Of the rewards of two answers to each prompt."""
    return {
        "reward_chosen": each(chosen),
        "reward_rejected": each(rejected),
        "reward_margin": each(chosen - rejected),
        "reward_accuracy": each((chosen > rejected).float()),
    }
