"""Plans and verdicts as text for people."""

import os
import shlex
from collections.abc import Mapping, Sequence
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING

from conf.ranks import ranks
from conf.regimes import regime_row
from conf.schema import Freeze, Hosts, Run, Slurm
from conf.sizes import MIB
from launcher.composition.recorded import PREFIX
from launcher.gate.expectations import Expectations
from launcher.gate.judge import Judged
from launcher.gate.verdict import Verdict, check_line
from launcher.launch.plan import LaunchPlan
from launcher.memory.ranges import Range
from launcher.memory.terms import MemoryEstimate
from launcher.rules.slurm import stated_memory
from launcher.words import count, duration, gib, plural, wrapped

if TYPE_CHECKING:
    from launcher.gate.proposals import Change, MatrixRow

NAME_WIDTH, SIZE_WIDTH = 34, 12
BAR_WIDTH = 30  # a line of a term has 80 columns


def run_sentence(judged: Judged) -> str:
    """The run in one sentence."""
    run, facts = judged.run, judged.facts
    what = f"{run.stage.name} of {run.model.name} ({count(facts.parameters)} parameters), {regime_phrase(run)} in {run.training.precision}"
    started = f"{plural(ranks(run), 'rank')} under {run.sharding.name} through {run.backend.name}"
    batch = (
        f"{plural(run.training.effective_batch, 'sample')} a step (micro-batch {run.training.micro_batch} x {plural(ranks(run), 'rank')} x "
        f"accumulation {run.training.accumulation}) of at most {run.data.cutoff} tokens{packed_phrase(run)}"
    )
    return f"{what}, on {', '.join(run.data.sets)}: {started}, {batch}, on {place_phrase(run)}."


def place_phrase(run: Run) -> str:
    """The node, and how many of it. Its ranks may be fewer than its GPUs."""
    nodes, node = run.cluster.nodes, run.node
    if not node.gpus:
        return "a CPU node" if nodes == 1 else f"{nodes} CPU nodes"
    gpus = f"{node.gpus} x {node.gpu_name or 'GPU'}"
    return gpus if nodes == 1 else f"{nodes} nodes of {gpus}"


def packed_phrase(run: Run) -> str:
    return f", packed under {run.training.attention} attention" if run.data.packing else ""


def regime_phrase(run: Run) -> str:
    modules = f" and {', '.join(run.regime.modules)}" if isinstance(run.regime, Freeze) and run.regime.modules else ""
    return regime_row(run.regime.name).phrase.format(**vars(run.regime)) + modules


def fit_lines(judged: Judged) -> list[str]:
    """What was chosen, and a line for each key of it with the reason."""
    if not judged.fit:
        return []
    what = "training.fit=auto" if judged.run.training.fit == "auto" else "chosen by training.fit"
    said = [f"{what}: {judged.fit[0]}.", *(f"  {reason}" for reason in judged.fit[1:])]
    return [line for text in said for line in wrapped(text, later=4)]


def memory_lines(judged: Judged) -> list[str]:
    """The peak phase by term, against the capacity of one GPU (or of the host); and how far each size may be off."""
    estimate, node = judged.estimate, judged.run.node
    capacity = node.gpu_memory or node.host_memory
    of_capacity = f"  of {gib(capacity)}" if capacity else ""
    lines = [f"memory of one rank, at its peak in the phase {estimate.peak.name}:"]
    for term in sorted(estimate.peak.terms, key=lambda term: -term.bytes):
        if term.bytes:
            lines.append(f"{size_line(term.name, term.bytes)}  {bar(term.bytes, capacity)}".rstrip())
    lines.append(size_line("allocated at the peak", estimate.allocated))
    if node.gpus:
        lines += [size_line("needed to run", estimate.required) + of_capacity, *range_lines(estimate.ranges.needed, estimate.required)]
        lines += [size_line("nvidia-smi will show", estimate.nvml), *range_lines(estimate.ranges.driver, estimate.nvml)]
        lines += full_card_lines(estimate, node.capacity)
    ranks_here = plural(judged.run.cluster.ranks_per_node, "rank")
    host = size_line(f"host memory of a node, {ranks_here}", estimate.host) + (of_capacity if not node.gpus else "")
    lines += [host, *range_lines(estimate.ranges.host, estimate.host)]
    return [*lines, *(line for doubt in estimate.doubts for line in wrapped(f"  approximate: {doubt}", later=4))]


def full_card_lines(estimate: MemoryEstimate, capacity: int) -> list[str]:
    """Where the range of nvidia-smi ends above the card, and that of what is needed does not."""
    if not estimate.ranges.driver.high(estimate.nvml) > capacity >= estimate.ranges.needed.high(estimate.required):
        return []
    text = f"    It shows at most the {gib(capacity)} of the GPU: before memory runs out, torch gives back what it reserved and does not use."
    return wrapped(text, later=6)


def range_lines(found: Range, predicted: int) -> list[str]:
    """Where the true size lies, and how that is known."""
    return wrapped(f"    {gib(found.low(predicted))} to {gib(found.high(predicted))}: {found.source}", later=6)


def size_line(name: str, size: int) -> str:
    return f"  {name:<{NAME_WIDTH}}{gib(size):>{SIZE_WIDTH}}"


def bar(size: int, capacity: int | None) -> str:
    if not capacity:
        return ""
    filled = min(BAR_WIDTH, round(BAR_WIDTH * size / capacity))
    return "█" * filled + "░" * (BAR_WIDTH - filled)


def verdict_lines(verdict: Verdict) -> list[str]:
    head = "permitted" if verdict.permitted else "REFUSED"
    checks = [line for check in verdict.checks for line in wrapped(check_line(check), later=8)]
    close = wrapped(f"  {verdict.close}.", later=8) if verdict.close else []
    return [f"verdict: {head} (gate.mode={verdict.mode})", *checks, *close]


def expectation_lines(judged: Judged) -> list[str]:
    expected = judged.expectations
    steps = plural(expected.steps, "step") if expected.steps is not None else "an unknown number of steps"
    tokens = f", at most {count(expected.tokens)} tokens" if expected.tokens is not None else ""
    sources = wrapped(f"  ({'; '.join(expected.sources)})", later=3)
    return [*wrapped(f"expected: {steps}{tokens}, {gib(expected.disk)} of disk"), *sources, *wrapped(time_sentence(expected))]


def time_sentence(expected: Expectations) -> str:
    """Of the steps alone: start, evaluations and checkpoints are not in it."""
    step = expected.step
    if step.missing:
        return f"time: not predicted, because {', and '.join(step.missing)}"
    one = f"about {short(step.seconds)} a step ({short(step.low)} to {short(step.high)}: {step.source})"
    whole = "" if expected.seconds is None else f"; {about(expected.seconds)} for all steps, without start, evaluations and checkpoints"
    return f"time: {one}, {step.tokens / step.seconds:,.0f} tokens/s{whole}"


def short(seconds: float) -> str:
    """In milliseconds, seconds, or from two minutes on hours and minutes."""
    if seconds >= 120:
        return duration(seconds)
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s" if seconds >= 1 else f"{seconds * 1e3:.0f} ms"


def about(seconds: float) -> str:
    return f"about {duration(seconds)}" if seconds >= 1 else "less than a second"


def time_lines(judged: Judged) -> list[str]:
    """Every term of a step's time."""
    step = judged.expectations.step
    lines = [f"\n{time_sentence(judged.expectations)}"]
    if step.missing:
        return lines
    return [*lines, *(f"  {term.name:<{NAME_WIDTH}}{term.seconds * 1e3:>{SIZE_WIDTH - 3},.1f} ms  {term.source}" for term in step.terms)]


def command_lines(plan: LaunchPlan, site: Mapping[str, str]) -> list[str]:
    """The command stays on one line, for pasting."""
    lines = ["command:", "  " + shlex.join(plan.command.argv)]
    changes = plan.command.changes(site)
    lines += [f"  with {name}={added(name, value, site)}" if value is not None else f"  without {name}" for name, value in changes.items()]
    return lines


def machine_lines(plan: LaunchPlan) -> list[str]:
    """For each machine what is started there, through ssh or by hand, and what that starts."""
    through_ssh = isinstance(plan.run.cluster, Hosts) and plan.run.cluster.start == "ssh"
    lines = []
    for share in plan.shares:
        lines += [f"machine {share.node_rank}, {share.host}:", f"  {shlex.join(share.connected) if through_ssh else share.pasted}"]
        lines += [f"    which starts: {shlex.join(share.ranks)}"]
    return lines


def added(name: str, value: str, site: Mapping[str, str]) -> str:
    """The value, with $NAME for what the site has in it already: of a long PATH only the folder that is added is news."""
    before = site.get(name, "")
    parts, known = value.split(os.pathsep), before.split(os.pathsep)
    if not before or len(known) >= len(parts):
        return value
    if parts[: len(known)] == known:
        return os.pathsep.join([f"${name}", *parts[len(known) :]])
    if parts[-len(known) :] == known:
        return os.pathsep.join([*parts[: -len(known)], f"${name}"])
    return value


def file_lines(path: Path, text: str) -> list[str]:
    """A file that the launch writes, indented, so that it stands out from the plan around it."""
    return [f"file {path}:", *(f"  {line}".rstrip() for line in text.splitlines())]


def plan_text(plan: LaunchPlan, site: Mapping[str, str]) -> str:
    judged = plan.judged
    blocks = [
        wrapped(run_sentence(judged)),
        fit_lines(judged),
        memory_lines(judged),
        verdict_lines(judged.verdict),
        expectation_lines(judged),
        command_lines(plan, site),
        machine_lines(plan),
        *(file_lines(path, text) for path, text in plan.files),
        [f"run folder: {plan.run_dir.path}"],
    ]
    return "\n\n".join("\n".join(block) for block in [*blocks, note_lines(judged)] if block)


def note_lines(judged: Judged) -> list[str]:
    return [line for note in judged.notes for line in wrapped(f"note: {note}")]


def explanation_lines(judged: Judged) -> list[str]:
    """Every phase and term, the peak marked, each with the source of its formula."""
    estimate = judged.estimate
    lines = [*wrapped(run_sentence(judged)), *fit_lines(judged)]
    for phase in estimate.phases:
        lines.append(f"\n{phase.name}: {gib(phase.bytes)}{'  <- the peak' if phase is estimate.peak else ''}")
        lines += [f"{size_line(term.name, term.bytes)}  {term.source}" for term in phase.terms if term.bytes]
    elsewhere = {"outside of torch, on the GPU": estimate.outside, "host memory of a node": estimate.host_terms, "disk": estimate.disk_terms}
    for title, terms in elsewhere.items():
        lines.append(f"\n{title}: {gib(sum(term.bytes for term in terms))}")
        lines += [f"{size_line(term.name, term.bytes)}  {term.source}" for term in terms if term.bytes]
    return [*lines, *time_lines(judged), *(f"approximate: {doubt}" for doubt in estimate.doubts), "", *verdict_lines(judged.verdict)]


CHOSEN_ANEW = (
    "Each peak is that of the form which needs least. Where more fits, what the run leaves open takes a faster form with a higher peak; the plan of "
    "the pasted line shows it."
)


def recommendation_lines(decided: Judged, changes: "Sequence[Change]", given: Sequence[str]) -> list[str]:
    """The proposals for a refused run that `given` describes. What training.fit chose is chosen once more after a change."""
    from launcher.gate.pasting import left_out

    if not changes and lacks_stated_memory(decided):
        return wrapped(more_memory(decided))
    if not changes and any(text.startswith(PREFIX) for text in given):
        return ["A resumed run keeps its configuration, and nothing that may change makes it fit. Resume it on a larger node, or start a new run."]
    if not changes:
        return ["Nothing that can be changed makes this run fit. Describe a larger node with node.gpus and node.gpu_memory."]
    lines = ["what would fit, cheapest first (paste after `regimen train ...`):"]
    for change in changes:
        note = change.note + leave_out(left_out(given, change.overrides))
        lines.append(f"  {' '.join(change.overrides)}")
        lines += wrapped(f"      peak {gib(change.peak)}, {gib(change.headroom)} to spare; {note}", later=6)
    return lines + (wrapped(CHOSEN_ANEW) if decided.fit else [])


def lacks_stated_memory(judged: Judged) -> bool:
    """Whether nothing but the host memory that cluster.memory gives the job keeps the run from its node."""
    run, failed = judged.run, {check.rule for check in judged.verdict.checks if check.binding and not check.passed}
    stated = stated_memory(run.cluster) if isinstance(run.cluster, Slurm) else None
    hosted = {"HOST_RAM"} if run.node.gpus else {"HOST_RAM", "PUBLISHED_FLOOR"}
    return stated is not None and stated == run.node.host_memory and bool(failed) and failed <= hosted


def more_memory(judged: Judged) -> str:
    """The least cluster.memory that passes every check. The published table counts the memory of all nodes."""
    cluster = judged.run.cluster
    assert isinstance(cluster, Slurm)
    shares = {"HOST_RAM": 1, **({} if judged.run.node.gpus else {"PUBLISHED_FLOOR": cluster.nodes})}
    least = max(ceil(check.need / shares[check.rule]) for check in judged.verdict.checks if check.rule in shares and check.binding)
    return (
        f"cluster.memory={cluster.memory} is all the host memory that the job gets on a node. Set cluster.memory={ceil(least / MIB)}MiB or more "
        "where its nodes have as much, or cluster.memory=null, which asks for what is predicted and a margin."
    )


def leave_out(keys: Sequence[str]) -> str:
    return f"; leave out {' and '.join(keys)}" if keys else ""


def matrix_lines(judged: Judged, rows: "Sequence[MatrixRow]") -> list[str]:
    """Every regime on this node; both needs in one unit, of one place. Under the table is what a cell has no room for."""
    run = judged.run
    place = "one GPU" if run.node.gpus else "a node"
    lines = [
        *wrapped(
            f"{run.model.name} ({count(judged.facts.parameters)} parameters), {plural(ranks(run), 'rank')} on {place_phrase(run)}; memory of {place}:"
        ),
        f"  {'regime':<22}{'published':>12}{'predicted':>12}  verdict",
    ]
    for row in rows:
        predicted = "-" if row.predicted is None else gib(row.predicted)
        verdict = "permitted" if row.permitted else f"refused: {row.short}" if row.predicted is not None else row.short
        lines.append(f"  {row.name:<22}{gib(row.published):>12}{predicted:>12}  {verdict}")
    for why in dict.fromkeys(row.why for row in rows if row.predicted is None):
        lines += ["", *wrapped(f"{', '.join(row.name for row in rows if row.why == why)}: {why}")]
    return lines
