"""Variants of a judged run, judged as it was; and the cheapest of them that would fit instead of it."""

from collections.abc import Callable
from dataclasses import replace

from conf.ranks import ranks
from conf.schema import Run
from launcher.errors import DataError
from launcher.gate.expectations import refuse_too_few
from launcher.gate.judge import Judged, disk_of
from launcher.gate.verdict import Check, Verdict, judge
from launcher.memory.estimate import estimate


def judging_like(decided: Judged) -> Callable[[Run], Verdict]:
    """Judges variants of a run by the same model; what is free on the GPUs counts on the same node only."""

    def judged_variant(run: Run) -> Verdict:
        free = decided.node.gpu_free if run.node == decided.run.node else ()
        verdict = judge(run, decided.facts, estimate(run, decided.facts), free or None, disk_of(run, decided.node))
        try:
            refuse_too_few(run, decided.expectations.samples)
        except DataError as error:  # on more GPUs a batch needs more samples
            lacking = Check("SAMPLES", ranks(run) * run.training.micro_batch, decided.expectations.samples or 0, False, True, str(error))
            return replace(verdict, permitted=False, checks=(*verdict.checks, lacking))
        return verdict

    return judged_variant
