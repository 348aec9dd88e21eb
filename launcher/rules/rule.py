"""What one row of the compatibility tables says."""

from collections.abc import Callable
from dataclasses import dataclass

from conf.schema import Run


@dataclass(frozen=True)
class Rule:
    name: str
    applies: Callable[[Run], bool]
    why: str  # what happens when it is tried
    instead: str  # overrides, ready to paste
