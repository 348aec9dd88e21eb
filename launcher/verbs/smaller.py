"""What is printed where a run has run out of memory: forms of it that need less than the estimate that was too low."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from conf.run_dir import RunDir
from conf.schema import Run
from launcher.composition import recorded
from launcher.errors import ConfigError, RegimenError
from launcher.gate.judge import Judged, judge_recorded
from launcher.gate.verdict import Verdict, judge
from launcher.memory.estimate import estimate
from launcher.words import gib, wrapped

LEFT = 0.1  # of the predicted need of the run that failed: what the estimate lacked is not known, only that it was something


def smaller_lines(run_dir: RunDir) -> list[str]:
    """At most five changes, cheapest first, each as the command that goes on or as the overrides of a new run."""
    from launcher.gate.proposals import alternatives

    try:
        decided = judge_recorded(recorded.resumed_run(run_dir, []))
        found = alternatives(decided.run, decided.facts, judging_below(decided, limit_of(decided)))
    except RegimenError as error:
        return [f"What needs less memory is not known: {error}"]
    if not found:
        return ["Nothing that can be changed makes this run need less by the estimate. Use a larger node."]
    head = f"what needs less, cheapest first (at most {gib(limit_of(decided))} predicted, where this run had {gib(predicted(decided))}):"
    lines = wrapped(head)
    for change in found:
        lines.append(f"  {form_of(run_dir, change.overrides)}")
        lines += wrapped(f"      peak {gib(change.peak)}; {change.note}", later=6)
    return lines


def predicted(decided: Judged) -> int:
    return decided.estimate.required if decided.run.node.gpus else decided.estimate.host


def limit_of(decided: Judged) -> int:
    return int(predicted(decided) * (1 - LEFT))


def judging_below(decided: Judged, limit: int) -> Callable[[Run], Verdict]:
    """Judges forms of the run as if its own node had no more than `limit` bytes; another node has what it has."""

    def judged(run: Run) -> Verdict:
        strict = replace(run, gate=replace(run.gate, mode="enforce"))
        if run.node != decided.run.node:
            return judge(strict, decided.facts, estimate(run, decided.facts))
        if run.node.gpus:
            return judge(strict, decided.facts, estimate(run, decided.facts), (limit,))
        return judge(replace(strict, node=replace(run.node, host_memory=limit)), decided.facts, estimate(run, decided.facts))

    return judged


def form_of(run_dir: RunDir, overrides: Sequence[str]) -> str:
    """The command that goes on with these, or that a new run needs them."""
    words = " ".join(overrides)
    try:
        recorded.resumed_run(run_dir, overrides)
    except ConfigError:  # they would change what is learned
        return f"a new run with: {words}"
    return f"regimen train resume={run_dir.path} {words}"
