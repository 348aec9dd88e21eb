"""Whether checkpoints are written while training goes on, where checkpoint.background=null leaves it open."""

from dataclasses import replace

from conf.schema import Ddp, Run
from launcher.facts.model import ModelFacts
from launcher.memory.estimate import estimate
from launcher.memory.host import IN_FLIGHT

WORTH = 2**30  # bytes: less is written within a second or two


def with_background(run: Run, facts: ModelFacts) -> Run:
    """The run with the choice made; a choice that was made stays."""
    if run.checkpoint.background is not None:
        return run
    return replace(run, checkpoint=replace(run.checkpoint, background=pays(run, facts)))


def pays(run: Run, facts: ModelFacts) -> bool:
    """A GPU's rank that saves alone, enough to save, and known host memory with room for the copy."""
    have = run.node.host_memory
    if not run.node.gpus or not isinstance(run.sharding, Ddp) or not run.checkpoint.interval or have is None:
        return False
    copied = estimate(replace(run, checkpoint=replace(run.checkpoint, background=True)), facts)
    size = sum(term.bytes for term in copied.host_terms if term.name == IN_FLIGHT)
    return size >= WORTH and copied.host <= have
