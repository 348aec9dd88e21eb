"""How far a predicted size may be off, and how that is known."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Uncertainty:
    """Shares of what is predicted by which the true size may be smaller and larger."""

    below: float
    above: float
    source: str  # the kind of job that it comes from

    @property
    def share(self) -> float:
        return max(self.below, self.above)


@dataclass(frozen=True)
class Range:
    """Where the true size lies: shares of what is predicted, and bytes beside them."""

    below: float
    above: float
    less: int
    more: int
    source: str

    def low(self, predicted: int) -> int:
        return max(0, int(predicted * (1 - self.below)) - self.less)

    def high(self, predicted: int) -> int:
        return int(predicted * (1 + self.above)) + self.more


@dataclass(frozen=True)
class Ranges:
    """Of the three sizes that a plan states."""

    needed: Range  # on a GPU; on a CPU node that of the host
    driver: Range  # what nvidia-smi shows
    host: Range
