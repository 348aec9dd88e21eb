"""Requests to stop this rank: a signal, or the stop file of the run folder. Everything that takes long asks here between two of its parts.

A rank alone may leave early what it does alone, an answer that it writes. What all ranks do together they leave together: `leave_if_asked`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import StoppingCriteria, StoppingCriteriaList

from trainers.errors import Left
from trainers.ranks.agreement import total
from trainers.ranks.life import LIFE


@dataclass
class Requests:
    """One for each process, as its signals are. Without a file, and where nobody notes signals, nothing is ever asked."""

    file: Path | None = None
    signalled: bool = False

    def begin(self, file: Path) -> None:
        self.file, self.signalled = file, False

    def asked(self) -> bool:
        """Of this rank."""
        return self.signalled or (self.file is not None and self.file.exists())


REQUESTS = Requests()


def asked_anywhere() -> bool:
    """Whether any rank was asked; the same answer on all. A collective act."""
    return bool(total(torch.tensor([float(REQUESTS.asked())]))[0] > 0)


def leave_if_asked() -> None:
    """Between two parts of what comes after a step. A collective act.

    Raises:
        Left: on every rank, where any was asked to stop.
    """
    if asked_anywhere():
        raise Left


class Asked(StoppingCriteria):
    """Ends every answer of this rank with the token that it has just written, once the rank is asked to stop."""

    def __call__(self, input_ids: Tensor, scores: Tensor, **_: Any) -> Tensor:
        """True or false for each answer, [answers]. Each token is a sign that the rank gets on."""
        LIFE.move()
        return torch.full((input_ids.shape[0],), REQUESTS.asked(), dtype=torch.bool, device=input_ids.device)


def ends_when_asked() -> StoppingCriteriaList:
    return StoppingCriteriaList([Asked()])


@contextmanager
def answers_end_when_asked(model: Any) -> Iterator[None]:
    """What a library has `model` generate inside ends as if it were given the criterion."""
    own = vars(model).get("generate")  # FSDP2 puts one there
    model.generate = partial(model.generate, stopping_criteria=ends_when_asked())
    try:
        yield
    finally:
        if own is None:
            del model.generate
        else:
            model.generate = own
