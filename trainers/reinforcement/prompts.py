"""Which prompts a rank answers when: in a new order every epoch, each batch of them repeated for as many steps as use its answers."""

from collections.abc import Callable, Iterator

import torch
from torch.utils.data import Sampler
from transformers import TrainerState

from trainers.errors import DataError


class RepeatedPrompts(Sampler[int]):
    """A Sampler by inheritance, since accelerate splits nothing else over the ranks. TRL's own draws other orders after a resume."""

    def __init__(self, prompts: int, batch: int, copies: int, repeats: int, seed: int, epoch: Callable[[], int]) -> None:
        """`batch` prompts, each `copies` times in a row, the whole `repeats` times; prompts that fill no batch wait for another epoch."""
        if prompts < batch:
            raise DataError(
                f"{prompts} prompts are fewer than the {batch} that are answered at once on all ranks. "
                "Lower training.effective_batch or stage.mini_batches, or give more data."
            )
        self.prompts, self.batch, self.copies, self.repeats = prompts, batch, copies, repeats
        self.seed, self.epoch = seed, epoch

    def __len__(self) -> int:
        return self.prompts // self.batch * self.batch * self.copies * self.repeats

    def __iter__(self) -> Iterator[int]:
        order = torch.randperm(self.prompts, generator=torch.Generator().manual_seed(self.seed + self.epoch())).tolist()
        for start in range(0, self.prompts - self.batch + 1, self.batch):
            for _ in range(self.repeats):
                for prompt in order[start : start + self.batch]:
                    yield from [prompt] * self.copies


def epoch_of(state: TrainerState) -> int:
    """The epoch that begins, or in which a resumed run goes on."""
    return int(state.epoch or 0)
