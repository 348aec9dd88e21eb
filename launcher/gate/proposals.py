"""What would fit instead of a refused run: judged changes, cheapest first; and every regime on this node."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import product

from conf.choices import choice, has_file
from conf.ranks import ranks
from conf.regimes import REGIMES, regime_row
from conf.schema import Qlora, Run
from conf.shardings import SHARDINGS, sharding_row
from launcher.facts.model import ModelFacts
from launcher.gate.changes import (
    Move,
    attention_moves,
    carried,
    checkpointing_moves,
    cutoff_moves,
    disk_moves,
    evaluation_moves,
    loss_moves,
    micro_batches,
    node_moves,
    optimizer_moves,
    overrides_between,
    rank_moves,
    reference_moves,
    regime_moves,
    sharding_moves,
    trained,
    with_micro_batch,
    worker_moves,
)
from launcher.gate.hardware_table import published_need, row_of
from launcher.gate.verdict import Verdict, floor_check
from launcher.memory.estimate import estimate
from launcher.rules.pairs import incompatibilities
from launcher.rules.rule import Rule
from launcher.words import gib

MOST_PROPOSALS = 5
SMALLER_BATCH = Move("micro-batch", 4, "smaller micro-batches, more of them: the same effective batch, less efficient kernels", lambda run: run)

JudgeRun = Callable[[Run], Verdict]
Moves = tuple[Move, ...]


@dataclass(frozen=True)
class Change:
    overrides: tuple[str, ...]  # appended to the refused run's own, they describe a permitted run
    peak: int  # bytes: of one GPU, or of the node's host memory where there is none
    headroom: int  # bytes left beside it
    note: str  # what the change costs


def alternatives(run: Run, facts: ModelFacts, judge_run: JudgeRun, most: int = MOST_PROPOSALS) -> tuple[Change, ...]:
    """At most `most` changes that make a refused run permitted, cheapest first; none of them contains another."""
    verdict = judge_run(run)
    if passes(verdict):
        return ()
    found: list[tuple[Moves, Change]] = []
    for moves in candidates(run, facts, cheap_axes(run, verdict), judge_run):
        if any(contains(moves, smaller) for smaller, _ in found):
            continue
        changed = first_fitting(run, moves, judge_run)
        overrides = () if changed is None else overrides_between(run, without_accumulation(run, changed))
        if changed is None or not overrides:
            continue
        found.append((moves, Change(overrides, needed(changed, facts), judge_run(changed).headroom, notes(moves))))
        if len(found) == most:
            break
    return tuple(change for _, change in found)


def cheap_axes(run: Run, verdict: Verdict) -> list[list[Move]]:
    """Moves that keep what is learned; one that helps in only one place is kept only where that place is the tight one."""
    failed = {check.rule for check in verdict.checks if not check.passed}
    axes = [
        attention_moves(run),
        loss_moves(run),
        reference_moves(run),
        disk_moves(run) if "DISK" in failed else [],
        evaluation_moves(run) if verdict.phase == "evaluation" else [],
        checkpointing_moves(run),
        worker_moves(run) if "HOST_RAM" in failed else [],
        rank_moves(run),
        [SMALLER_BATCH] if micro_batches(run)[1:] else [],
        optimizer_moves(run),
    ]
    return [moves for moves in axes if moves]


def candidates(run: Run, facts: ModelFacts, cheap_axes: list[list[Move]], judge_run: JudgeRun) -> Iterator[Moves]:
    """Combinations of moves by rising cost; those that even the cheap moves together cannot save are left out."""
    cheap = sorted(combinations(cheap_axes), key=cost)
    frugal = max(cheap, key=len)
    for costly in sorted(costly_combinations(run), key=cost):
        if worth_trying(applied(run, costly), costly) and can_fit(run, facts, costly, frugal, judge_run):
            yield from (costly + moves for moves in cheap if costly + moves and worth_trying(applied(run, costly), moves))


def combinations(axes: list[list[Move]]) -> list[Moves]:
    """At most one move of each axis."""
    return [tuple(move for move in picked if move is not None) for picked in product(*([None, *moves] for moves in axes))]


def costly_combinations(run: Run) -> list[Moves]:
    """Two costly moves at most, and another node beside sharding and regime."""
    every = combinations([sharding_moves(run), regime_moves(run), cutoff_moves(run), node_moves(run)])
    return [moves for moves in every if len(moves) <= 2 or {move.axis for move in moves} == {"sharding", "regime", "node"}]


def worth_trying(moved: Run, moves: Moves) -> bool:
    """One rank has nothing to split; adapters have too few states for moving or shrinking them to help."""
    if ranks(moved) == 1 and any(move.axis == "sharding" for move in moves) and not sharding_row(moved.sharding.name).offloads:
        return False
    if regime_row(moved.regime.name).learns != "an adapter":
        return True
    offloads = sharding_row(moved.sharding.name).offloads
    return not any(move.axis == "optimizer" or (move.axis == "sharding" and offloads) for move in moves)


def cost(moves: Moves) -> int:
    return sum(move.cost for move in moves)


def contains(moves: Moves, smaller: Moves) -> bool:
    """Whether `moves` goes as far as `smaller` on every axis that `smaller` changes."""
    costs = {move.axis: move.cost for move in moves}
    return all(costs.get(move.axis, 0) >= move.cost for move in smaller)


def can_fit(run: Run, facts: ModelFacts, costly: Moves, frugal: Moves, judge_run: JudgeRun) -> bool:
    """Whether the costly moves fit with every cheap one that they are compatible with; with the plain loss too, which is less for short batches."""
    moved = applied(run, costly)
    if not floor_allows(moved, facts):
        return False
    for move in frugal:
        if move.axis != "loss" and not incompatibilities(move.apply(moved)):
            moved = move.apply(moved)
    losses = [moved, *(move.apply(moved) for move in frugal if move.axis == "loss")]
    return any(fits(with_micro_batch(loss, size), judge_run) for loss in losses for size in micro_batches(loss)[-1:])


def applied(run: Run, moves: Moves) -> Run:
    for move in moves:
        run = move.apply(run)
    return run


def first_fitting(run: Run, moves: Moves, judge_run: JudgeRun) -> Run | None:
    """The run after `moves` with the largest micro-batch that fits; without SMALLER_BATCH only its own, or the nearest that other ranks allow."""
    moved = applied(run, moves)
    sizes = micro_batches(moved)
    if SMALLER_BATCH in moves:
        sizes = [size for size in sizes if size < run.training.micro_batch]
        if not sizes or not fits(with_micro_batch(moved, sizes[-1]), judge_run):
            return None
    else:
        sizes = sizes[:1]
    return next((changed for changed in (with_micro_batch(moved, size) for size in sizes) if fits(changed, judge_run)), None)


def floor_allows(run: Run, facts: ModelFacts) -> bool:
    check = floor_check(run, facts)
    return check.passed or not check.binding


def fits(run: Run, judge_run: JudgeRun) -> bool:
    return not incompatibilities(run) and passes(judge_run(run))


def passes(verdict: Verdict) -> bool:
    """As the gate decides under gate.mode=enforce."""
    return all(check.passed or not check.binding for check in verdict.checks)


def without_accumulation(run: Run, changed: Run) -> Run:
    """training.fit=auto computes it, and refuses to be given it; what else a proposal states, it leaves as it is."""
    return changed if run.training.fit != "auto" else trained(changed, accumulation=run.training.accumulation)


def needed(run: Run, facts: ModelFacts) -> int:
    predicted = estimate(run, facts)
    return predicted.required if run.node.gpus else predicted.host


def notes(moves: Moves) -> str:
    return "; ".join(move.note for move in sorted(moves, key=lambda move: -move.cost))


@dataclass(frozen=True)
class MatrixRow:
    name: str
    overrides: tuple[str, ...]
    published: int  # bytes that the table needs of one GPU of the job, or of one node's host memory where it has none
    predicted: int | None  # bytes of the same; None for choices that cannot work together
    permitted: bool
    why: str  # of a refusal, in whole sentences; empty where it is permitted
    short: str  # the same in a few words


def regime_matrix(run: Run, facts: ModelFacts, judge_run: JudgeRun) -> tuple[MatrixRow, ...]:
    """The run's model, data and node under every regime, its own and the built-in ones."""
    return rows_between(run, run, facts, judge_run)


def sharding_matrix(run: Run, facts: ModelFacts, judge_run: JudgeRun) -> dict[str, tuple[MatrixRow, ...]]:
    """The rows of `regime_matrix` under every sharding: its own and the built-in ones."""
    names = [name for name in SHARDINGS if name == run.sharding.name or has_file("sharding", name)]
    names = names if run.sharding.name in names else [run.sharding.name, *names]
    return {name: rows_between(run, with_sharding(run, name), facts, judge_run) for name in names}


def with_sharding(run: Run, name: str) -> Run:
    return run if run.sharding.name == name else replace(run, sharding=choice("sharding", name))


def rows_between(run: Run, start: Run, facts: ModelFacts, judge_run: JudgeRun) -> tuple[MatrixRow, ...]:
    """Every regime from `start` on; their overrides lead to it from `run`."""
    names = [name for name in REGIMES if name == start.regime.name or has_file("regime", name)]
    variants = [variant for name in names for variant in regime_variants(with_regime(start, name))]
    return tuple(matrix_row(label, run, changed, facts, judge_run) for label, changed in variants)


def regime_variants(run: Run) -> list[tuple[str, Run]]:
    """The forms of the run's regime that the published table tells apart. A run in fp32 stays in fp32, so that its rows can be compared."""
    name, regime, single = run.regime.name, run.regime, run.training.precision == "fp32"
    if isinstance(regime, Qlora):
        return [(f"{name}, {bits} bits", replace(run, regime=replace(regime, bits=bits))) for bits in (8, 4, 2)]
    if regime_row(name).learns == "every weight":
        mixed = "fp16_amp" if run.training.precision == "fp16_amp" else "bf16_amp"
        first = (f"{name}, fp32", run) if single else (f"{name}, mixed precision", trained(run, precision=mixed))
        return [first, (f"{name}, 16 bits", trained(run, precision="bf16"))]
    return [(f"{name}, fp32" if single else name, run)]


def with_regime(run: Run, name: str) -> Run:
    return run if run.regime.name == name else replace(run, regime=carried("regime", name, run.regime))


def matrix_row(name: str, run: Run, changed: Run, facts: ModelFacts, judge_run: JudgeRun) -> MatrixRow:
    places = ranks(changed) if changed.node.gpus else changed.cluster.nodes
    published = published_need(row_of(changed), facts.parameters, facts.mixture) // places
    overrides, rules = overrides_between(run, changed), incompatibilities(changed)
    if rules:
        return MatrixRow(name, overrides, published, None, permitted=False, why=" ".join(map(rule_text, rules)), short="not possible")
    verdict = judge_run(changed)
    return MatrixRow(name, overrides, published, needed(changed, facts), verdict.permitted, refusal(verdict), missing(verdict))


def rule_text(rule: Rule) -> str:
    return f"{rule.why} Use {rule.instead} instead."


def refusal(verdict: Verdict) -> str:
    return "" if verdict.permitted else " ".join(check.sentence for check in verdict.checks if not check.passed and check.binding)


def missing(verdict: Verdict) -> str:
    """What is too small, in a few words; empty where nothing refuses. The predicted need says more than the published one."""
    if verdict.permitted:
        return ""
    failed = {check.rule: gib(check.need - check.have) for check in verdict.checks if not check.passed and check.binding}
    places = {"GPU_PEAK": "lacks", "HOST_RAM": "a node lacks", "DISK": "the disk lacks"}
    return next((f"{place} {failed[rule]}" for rule, place in places.items() if rule in failed), "by the published table")
