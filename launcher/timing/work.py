"""A run as the terms of time read it, and the unit in which they count what a GPU is asked for."""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from conf.checkpointing import recomputed
from conf.schema import Run
from launcher.facts.model import ModelFacts, ModuleKind
from launcher.memory.stages import answer_length, facts_of_stage, forwards_of, sample_tokens
from launcher.memory.step.activations import Arithmetic, arithmetic_of
from launcher.memory.weights.dtypes import FULL_MEANING, Storage, storage_of
from launcher.memory.weights.held import as_held
from launcher.memory.weights.parameters import Census, census_of

Kind = Literal["products", "attention", "traffic", "dequantising"]  # each has rates of its own (launcher/timing/rates.py)


@dataclass(frozen=True)
class Load:
    """Work of one kind. A multiplication and an addition are two operations; bytes are read or written."""

    name: str
    kind: Kind
    operations: float
    bytes: float


@dataclass(frozen=True)
class Work:
    """One micro-batch of one rank. Every sample is as long as data.cutoff, and where answers are written, those too."""

    run: Run
    facts: ModelFacts
    census: Census
    storage: Storage
    arithmetic: Arithmetic  # that of ddp: the casts of autocast that other engines spare were not timed
    tokens: int
    length: int  # tokens of a sequence
    forwards: float  # passes without gradients, for each one that learns
    lowest: int  # the lowest layer that the backward pass goes through
    again: int  # layers from there on that are computed again in it

    def backward(self, module: ModuleKind) -> int:
        """In how many layers the backward pass goes through such a module."""
        return len(module.layers) - bisect_left(module.layers, self.lowest)

    def repeated(self, module: ModuleKind) -> int:
        return bisect_left(module.layers, self.lowest + self.again) - bisect_left(module.layers, self.lowest)

    def passes(self, module: ModuleKind) -> float:
        """How often such modules read their weights for something other than these weights' gradients."""
        return len(module.layers) * (1 + self.forwards) + self.repeated(module) + self.backward(module)

    @property
    def depth(self) -> int:
        return self.facts.layers - self.lowest


def work_of(run: Run, facts: ModelFacts) -> Work:
    staged, storage = facts_of_stage(run, facts), storage_of(run)
    census = census_of(run, staged)
    return Work(
        run=run,
        facts=staged,
        census=census,
        storage=storage,
        arithmetic=arithmetic_of(as_held(run), staged, FULL_MEANING["torch", run.training.precision]),
        tokens=run.training.micro_batch * sample_tokens(run),
        length=run.data.cutoff + answer_length(run),
        forwards=forwards_of(run),
        lowest=staged.layers - census.depth,
        again=recomputed(run.training.gradient_checkpointing, census.depth),
    )


def summed(name: str, loads: Sequence[Load]) -> Load:
    """Loads of one kind as one."""
    return Load(name, loads[0].kind, sum(load.operations for load in loads), sum(load.bytes for load in loads))
