"""What a run needs of every GPU, of a node's host memory and of its disk, in closed form."""

from launcher.memory.estimate import estimate
from launcher.memory.storage import FULL_MEANING
from launcher.memory.terms import MemoryEstimate, Phase, Term

__all__ = ["FULL_MEANING", "MemoryEstimate", "Phase", "Term", "estimate"]
