"""An estimate is phases; a phase is terms; a term is a number with its source."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from launcher.memory.ranges import Ranges, Uncertainty


@dataclass(frozen=True)
class Term:
    name: str
    bytes: int
    source: str  # the formula, or where it was read or measured


Terms = tuple[Term, ...]


def total(terms: Terms) -> int:
    return sum(term.bytes for term in terms)


@dataclass(frozen=True)
class Phase:
    """What is alive at one moment of a training step, on one rank."""

    name: str
    terms: Terms

    @cached_property
    def bytes(self) -> int:
        return total(self.terms)

    @property
    def dominant(self) -> Term:
        return max(self.terms, key=lambda term: term.bytes)


ONE_LAYER = "activations of one layer"  # a term of most moments


@dataclass(frozen=True)
class Moment:
    """Of the backward pass of one layer."""

    name: str
    gradients: int  # elements of this layer that have one
    terms: Terms


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes of one GPU (on a CPU node: of one rank), of one node's host memory, and of the disk under the run folder."""

    phases: tuple[Phase, ...]
    fragments: int  # torch's, beyond the peak of what it allocates, in the smallest memory that still runs
    outside: Terms  # on the GPU, but not torch's: CUDA context, NCCL
    host_terms: Terms
    disk_terms: Terms
    doubts: tuple[str, ...]  # what the formulas only come close to; shown to the user
    uncertainty: Uncertainty
    ranges: Ranges
    replayed: Callable[[], int] = field(repr=False, compare=False)  # what the allocator reserves; milliseconds, so only when it is asked for

    @cached_property
    def peak(self) -> Phase:
        return max(self.phases, key=lambda phase: phase.bytes)

    @property
    def allocated(self) -> int:
        """torch.cuda.max_memory_allocated."""
        return self.peak.bytes

    @property
    def required(self) -> int:
        """The smallest GPU on which the job still runs: cached blocks are given back before an allocation fails."""
        return self.allocated + self.fragments + total(self.outside)

    @cached_property
    def reserved(self) -> int:
        """torch.cuda.max_memory_reserved where memory is plentiful: cached blocks included. No less than what the job can run in."""
        return max(self.allocated + self.fragments, self.replayed())

    @property
    def nvml(self) -> int:
        """What nvidia-smi shows where memory is plentiful."""
        return self.reserved + total(self.outside) if self.outside else 0

    @property
    def host(self) -> int:
        return total(self.host_terms)

    @property
    def disk(self) -> int:
        return total(self.disk_terms)

    @property
    def approximate(self) -> bool:
        return bool(self.doubts)

    def as_dict(self) -> dict[str, Any]:
        """For programs; sizes are bytes."""
        return {
            "allocated": self.allocated,
            "required": self.required,
            "reserved": self.reserved if self.outside else self.allocated,
            "nvml": self.nvml,
            "host": self.host,
            "disk": self.disk,
            "peak": self.peak.name,
            "phases": {phase.name: {"bytes": phase.bytes, "terms": {term.name: term.bytes for term in phase.terms}} for phase in self.phases},
            "outside": {term.name: term.bytes for term in self.outside},
            "host_terms": {term.name: term.bytes for term in self.host_terms},
            "disk_terms": {term.name: term.bytes for term in self.disk_terms},
            "doubts": list(self.doubts),
            "uncertainty": {
                "share": self.uncertainty.share,
                "below": self.uncertainty.below,
                "above": self.uncertainty.above,
                "source": self.uncertainty.source,
            },
            "ranges": self.stated_ranges(),
        }

    def stated_ranges(self) -> dict[str, Any]:
        """The smallest and largest bytes that a plan states of each size, and where that comes from."""
        stated = {"required": (self.ranges.needed, self.required), "nvml": (self.ranges.driver, self.nvml), "host": (self.ranges.host, self.host)}
        sizes = {name: (found, size) for name, (found, size) in stated.items() if size and (self.outside or name == "host")}
        return {name: {"low": found.low(size), "high": found.high(size), "source": found.source} for name, (found, size) in sizes.items()}
