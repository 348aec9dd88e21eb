"""Means over all answers or tokens of all ranks since the last log."""

import torch
from torch import Tensor

from trainers.ranks.agreement import total


class Measures:
    """Sums and counts stay on each rank until take(): every rank notes the same names in the same order."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}

    def note(self, name: str, values: Tensor, mask: Tensor | None = None) -> None:
        counted = torch.ones_like(values) if mask is None else mask
        added = torch.stack([(values.detach() * counted).sum().double(), counted.sum().double()])
        self.sums[name] = self.sums[name] + added if name in self.sums else added

    def take(self) -> dict[str, float]:
        """The means, once: a collective act."""
        if not self.sums:
            return {}
        sums = total(torch.stack(list(self.sums.values())))
        means = {name: (row[0] / row[1]).item() for name, row in zip(self.sums, sums, strict=True)}
        self.sums = {}
        return means
