"""Where a rank stands among the others."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Place:
    rank: int
    local_rank: int
    world: int
    attempt: int = 0  # how often the agent has restarted the ranks
    visible: str = ""  # CUDA_VISIBLE_DEVICES

    @property
    def leads(self) -> bool:
        return self.rank == 0
