"""Whether a job may run on its node: the published table and the predicted bytes against what is there."""

from dataclasses import asdict, dataclass
from typing import Any

from conf.ranks import ranks
from conf.schema import Run
from launcher.facts.model import ModelFacts
from launcher.gate.hardware_table import GB, published_need, row_of, row_words
from launcher.memory.estimate import MemoryEstimate
from launcher.words import count, gib, plural


@dataclass(frozen=True)
class Check:
    rule: str  # PUBLISHED_FLOOR | GPU_PEAK | HOST_RAM | DISK; CANARY after one; SAMPLES of a proposal
    need: int
    have: int
    passed: bool
    binding: bool  # false: a failure warns and does not refuse
    sentence: str


@dataclass(frozen=True)
class Verdict:
    permitted: bool
    mode: str  # enforce | advise | off
    checks: tuple[Check, ...]
    phase: str  # of the predicted peak
    term: str  # the largest of that phase
    headroom: int  # bytes left in the tightest place of the predicted checks; negative: missing
    close: str  # how near the limit is, where it lies within the estimate's uncertainty; else empty

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def judge(
    run: Run,
    facts: ModelFacts,
    estimate: MemoryEstimate,
    free: tuple[int, ...] | None = None,
    free_disk: int | None = None,
    users: tuple[str, ...] = (),
) -> Verdict:
    """The verdict on a settled run; `free` holds the free bytes of every GPU where they are known, `free_disk` those under the run folder, `users`
    the processes that hold memory on a GPU, by GPU."""
    if run.gate.mode == "off":
        checks: tuple[Check, ...] = ()
    else:
        gpu = (gpu_check(run, estimate, free, users),) if run.node.gpus else ()
        disk = (disk_check(estimate, free_disk),) if free_disk is not None else ()
        host = (host_check(run, estimate, run.node.host_memory),) if run.node.host_memory is not None else ()
        known = run.node.gpus > 0 or run.node.host_memory is not None
        checks = (*((floor_check(run, facts),) if known else ()), *gpu, *host, *disk)
    permitted = run.gate.mode != "enforce" or all(check.passed or not check.binding for check in checks)
    predicted = [check.have - check.need for check in checks if check.rule in ("GPU_PEAK", "HOST_RAM")]
    dominant = estimate.peak.dominant.name
    return Verdict(permitted, run.gate.mode, checks, estimate.peak.name, dominant, min(predicted, default=0), closeness(run, estimate, checks))


def closeness(run: Run, estimate: MemoryEstimate, checks: tuple[Check, ...]) -> str:
    """A sentence where what is there differs from what is needed by less than margin and uncertainty, so that the estimate alone cannot decide."""
    device = next((check for check in checks if check.rule == ("GPU_PEAK" if run.node.gpus else "HOST_RAM")), None)
    if device is None:
        return ""
    found, predicted = (estimate.ranges.needed, estimate.required) if run.node.gpus else (estimate.ranges.host, estimate.host)
    low, high = found.low(predicted), found.high(predicted)
    if not low <= device.have < max(high, int(predicted * (1 + run.gate.margin))):
        return ""
    return (
        f"may or may not fit: {gib(predicted)} are predicted, {gib(low)} to {gib(high)} may be needed, and {gib(device.have)} are there. "
        f"The limit lies within the margin of {run.gate.margin:.1%} or the estimate's uncertainty ({found.source}){who_decides(run)}"
    )


def who_decides(run: Run) -> str:
    asked = run.gate.canary or run.gate.mode != "enforce" or run.cluster.name != "local"
    return "" if asked else "; gate.canary=true lets real steps decide"


def floor_check(run: Run, facts: ModelFacts) -> Check:
    """The table counts the memory of all GPUs that the job uses; without GPUs, the host memory of its nodes."""
    row = row_of(run)
    need = published_need(row, facts.parameters, facts.mixture)
    have = ranks(run) * run.node.capacity if run.node.gpus else run.cluster.nodes * (run.node.host_memory or 0)
    passed, strict = have >= need, run.gate.floor == "strict"
    place = plural(ranks(run), "GPU") if run.node.gpus else "host memory"
    asked = f"the published table requires {gb(need)} for {row_words(run)} ({count(facts.parameters)} parameters)"
    sentence = f"{asked}; the job has {gb(have)} ({place}){'' if passed else floor_hint(strict)}."
    return Check("PUBLISHED_FLOOR", need, have, passed, strict, sentence)


def gb(size: int) -> str:
    """In the decimal unit of the published table."""
    return f"{size / GB:.1f} GB" if size >= 0.1 * GB else f"{size / 10**6:.1f} MB"


def floor_hint(strict: bool) -> str:
    return "; gate.floor=advisory relies on the prediction alone" if strict else "; gate.floor=advisory makes this a warning"


def gpu_check(run: Run, estimate: MemoryEstimate, free: tuple[int, ...] | None, users: tuple[str, ...]) -> Check:
    """Every rank needs the same, so the fullest GPU decides."""
    capacity = run.node.capacity
    have = min(capacity, *free) if free else capacity
    need = int(estimate.required * (1 + run.gate.margin))
    largest = estimate.peak.dominant
    predicted = f"predicted {gib(estimate.required)} in phase {estimate.peak.name}, most of it for {largest.name}, {gib(largest.bytes)}"
    held = f" ({'; '.join(users)})" if users and have < capacity else ""
    found = f"{gib(have)} {'is free' if have < capacity else 'is there'}{held}"
    return Check("GPU_PEAK", need, have, need <= have, True, f"a GPU needs {gib(need)} ({predicted}; gate.margin={run.gate.margin:g}); {found}.")


def host_check(run: Run, estimate: MemoryEstimate, have: int) -> Check:
    """On a CPU node host memory is where the job trains, so the margin counts there."""
    margin = 0.0 if run.node.gpus else run.gate.margin
    need = int(estimate.host * (1 + margin))
    largest = max(estimate.host_terms, key=lambda term: term.bytes)
    ranks_there = plural(run.cluster.ranks_per_node, "rank")
    sentence = f"a node needs {gib(need)} of host memory for {ranks_there}, most of it for {largest.name}; {gib(have)} is there."
    return Check("HOST_RAM", need, have, need <= have, True, sentence)


def disk_check(estimate: MemoryEstimate, free_disk: int) -> Check:
    sentence = f"checkpoints and the final model need {gib(estimate.disk)} of disk; {gib(free_disk)} is free; checkpoint.keep says how many are kept."
    return Check("DISK", estimate.disk, free_disk, estimate.disk <= free_disk, True, sentence)


def check_line(check: Check) -> str:
    return f"  {'pass' if check.passed else 'FAIL'}  {check.rule:<16} {check.sentence}"


def refusal_text(verdict: Verdict) -> str:
    """Why a run is refused: the rules that fired with both numbers."""
    failed = [check for check in verdict.checks if not check.passed]
    return "\n".join(["This run does not fit its node.", *(check_line(check) for check in failed)])
