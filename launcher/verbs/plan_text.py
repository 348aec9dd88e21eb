"""Plans and verdicts as text for people."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from conf.data_sets import evaluates
from conf.evaluations import is_evaluated
from conf.ranks import ranks
from conf.regimes import regime_row
from conf.schema import Freeze, Run
from launcher.gate.judge import Judged
from launcher.gate.verdict import Verdict, check_line
from launcher.launch.plan import LaunchPlan
from launcher.words import duration, gib, plural

if TYPE_CHECKING:
    from launcher.gate.proposals import Change, MatrixRow

GB = 10**9
BAR_WIDTH = 32


def run_sentence(judged: Judged) -> str:
    """The run in one sentence."""
    run, facts = judged.run, judged.facts
    what = f"{run.stage.name} of {run.model.name} ({facts.parameters / 1e9:.3g} B parameters), {regime_phrase(run)} in {run.training.precision}"
    place = f"{run.node.gpus} x {run.node.gpu_name or 'GPU'}" if run.node.gpus else "a CPU node"
    started = f"{plural(ranks(run), 'rank')} under {run.sharding.name} through {run.backend.name}"
    batch = (
        f"{plural(run.training.effective_batch, 'sample')} a step (micro-batch {run.training.micro_batch} x {plural(ranks(run), 'rank')} x "
        f"accumulation {run.training.accumulation}) of at most {run.data.cutoff} tokens{packed_phrase(run)}"
    )
    return f"{what}, on {', '.join(run.data.sets)}: {started}, {batch}, on {place}."


def packed_phrase(run: Run) -> str:
    return f", packed under {run.training.attention} attention" if run.data.packing else ""


def regime_phrase(run: Run) -> str:
    modules = f" and {', '.join(run.regime.modules)}" if isinstance(run.regime, Freeze) and run.regime.modules else ""
    return regime_row(run.regime.name).phrase.format(**vars(run.regime)) + modules


def fit_lines(judged: Judged) -> list[str]:
    head, rest = judged.fit[:1], judged.fit[1:]
    what = "training.fit=auto" if judged.run.training.fit == "auto" else "chosen by training.fit"
    return [*(f"{what}: {reason}." for reason in head), *(f"  {reason}" for reason in rest)]


def memory_lines(judged: Judged) -> list[str]:
    """The peak phase by term, against the capacity of one GPU (or of the host)."""
    estimate, node = judged.estimate, judged.run.node
    capacity = node.gpu_memory or node.host_memory
    lines = [f"memory of one rank, at its peak in the phase {estimate.peak.name}:"]
    for term in sorted(estimate.peak.terms, key=lambda term: -term.bytes):
        if term.bytes:
            lines.append(f"{size_line(term.name, term.bytes)}  {bar(term.bytes, capacity)}")
    lines.append(size_line("allocated at the peak", estimate.allocated))
    lines.append(size_line("needed to run", estimate.required) + (f"  of {gib(capacity)}" if capacity else ""))
    lines.append(size_line("nvidia-smi will show", estimate.nvml) if node.gpus else size_line("host memory of the node", estimate.host))
    lines.append(f"  uncertainty: ±{estimate.uncertainty.share:.1%} ({estimate.uncertainty.source})")
    return [*lines, *(f"  approximate: {doubt}" for doubt in estimate.doubts)]


def size_line(name: str, size: int) -> str:
    return f"  {name:<34}{gib(size):>12}"


def bar(size: int, capacity: int | None) -> str:
    if not capacity:
        return ""
    filled = min(BAR_WIDTH, round(BAR_WIDTH * size / capacity))
    return "█" * filled + "░" * (BAR_WIDTH - filled)


def verdict_lines(verdict: Verdict) -> list[str]:
    head = "permitted" if verdict.permitted else "REFUSED"
    close = [f"  close: {verdict.close}."] if verdict.close else []
    return [f"verdict: {head} (gate.mode={verdict.mode})", *(check_line(check) for check in verdict.checks), *close]


def expectation_lines(judged: Judged) -> list[str]:
    expected = judged.expectations
    steps = plural(expected.steps, "step") if expected.steps is not None else "an unknown number of steps"
    tokens = f", {expected.tokens / 1e6:,.1f} M tokens at most" if expected.tokens is not None else ""
    seconds = f", about {duration(expected.seconds)}" if expected.seconds is not None else ""
    return [f"expected: {steps}{tokens}{seconds}, {gib(expected.disk)} of disk", f"  ({'; '.join(expected.sources)})"]


def command_lines(plan: LaunchPlan, site: Mapping[str, str]) -> list[str]:
    lines = ["command:", "  " + shlex.join(plan.command.argv)]
    changes = plan.command.changes(site)
    lines += [f"  with {name}={value}" if value is not None else f"  without {name}" for name, value in changes.items()]
    return lines


def file_lines(path: Path, text: str) -> list[str]:
    """A file that the launch writes, indented, so that it stands out from the plan around it."""
    return [f"file {path}:", *(f"  {line}".rstrip() for line in text.splitlines())]


def plan_text(plan: LaunchPlan, site: Mapping[str, str]) -> str:
    judged = plan.judged
    blocks = [
        [run_sentence(judged)],
        fit_lines(judged),
        memory_lines(judged),
        verdict_lines(judged.verdict),
        expectation_lines(judged),
        command_lines(plan, site),
        *(file_lines(path, text) for path, text in plan.files),
        [f"run folder: {plan.run_dir.path}"],
    ]
    notes = [f"note: {note}" for note in (*judged.node.notes, *evaluation_notes(judged.run))]
    return "\n\n".join("\n".join(block) for block in [*blocks, notes] if block)


def evaluation_notes(run: Run) -> list[str]:
    if not evaluates(run.data) or is_evaluated(run):
        return []
    return ["evaluation.interval=0: samples are held out and never evaluated. Set evaluation.at_end=true for one evaluation after the last step."]


def explanation_lines(judged: Judged) -> list[str]:
    """Every phase and term, the peak marked, each with the source of its formula."""
    estimate = judged.estimate
    lines = [run_sentence(judged)]
    for phase in estimate.phases:
        lines.append(f"\n{phase.name}: {gib(phase.bytes)}{'  <- the peak' if phase is estimate.peak else ''}")
        lines += [f"{size_line(term.name, term.bytes)}  {term.source}" for term in phase.terms if term.bytes]
    elsewhere = {"outside of torch, on the GPU": estimate.outside, "host memory of a node": estimate.host_terms, "disk": estimate.disk_terms}
    for title, terms in elsewhere.items():
        lines.append(f"\n{title}: {gib(sum(term.bytes for term in terms))}")
        lines += [f"{size_line(term.name, term.bytes)}  {term.source}" for term in terms if term.bytes]
    return [*lines, *(f"approximate: {doubt}" for doubt in estimate.doubts)]


def recommendation_lines(changes: "Sequence[Change]") -> list[str]:
    if not changes:
        return ["Nothing that can be changed makes this run fit. Describe a larger node with node.gpus and node.gpu_memory."]
    lines = ["what would fit, cheapest first (paste after `regimen train ...`):"]
    for change in changes:
        lines.append(f"  {' '.join(change.overrides):<60} peak {gib(change.peak)}, {gib(change.headroom)} to spare; {change.note}")
    return lines


def matrix_lines(judged: Judged, rows: "Sequence[MatrixRow]") -> list[str]:
    """Every regime on this node."""
    lines = [f"{judged.run.model.name} on {judged.run.node.name}:", f"  {'regime':<24}{'published need':>16}{'predicted, a rank':>20}  verdict"]
    for row in rows:
        verdict = "permitted" if row.permitted else f"refused: {row.why}"
        lines.append(f"  {row.name:<24}{row.published / GB:>13.1f} GB{gib(row.predicted):>20}  {verdict}")
    return lines
