"""Whether a run hangs: the signs of life of its ranks at several moments in, a verdict out. Nothing here looks at a clock or at a process.

A rank is silent when nothing of its record changes, not even the count that goes on as long as its process can run: it is stopped, or stands still in
a call that lets no other thread run. A run stands still when every rank counts and none gets on: ten times the limit may pass then, since one of
them may be busy with something that takes long. It is a deadlock, and has the limit alone, where every rank stands in one call that waits for others.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from statistics import median
from typing import Literal, get_args

from conf.signs import STARTING, TRAINING, Sign

STEPS = 51  # whose median counts
MEDIANS = 3  # a step may take this many medians
STILL = 10  # ranks that count and do not get on have this many times as long
LOOK_LIMIT = 5.0  # seconds that count at most between two looks: while the supervisor itself is stopped, nobody watches
AGENT_SECONDS = 120.0  # the agent's own limit is 30 s, after which it kills the ranks that remain


Kind = Literal["silent", "deadlock", "still"]  # no sign at all; every rank waits for others; none gets on
SILENT, DEADLOCK, STANDS_STILL = get_args(Kind)


@dataclass(frozen=True)
class Seen:
    """One rank at one look."""

    sign: Sign | None  # None: it has written nothing yet
    lives: bool  # whether the process of that record is there


@dataclass(frozen=True)
class RankHistory:
    sign: Sign | None = None
    lives: bool = True
    quiet: float = 0.0  # seconds since anything changed
    still: float = 0.0  # seconds since the rank got on
    since_step: float = 0.0  # seconds since it finished a step
    waiting: float = 0.0  # seconds for which it has stood in one call that waits for other ranks


@dataclass(frozen=True)
class History:
    """What is known after some looks. Seconds are those in which somebody watched."""

    now: float  # of the last look
    ranks: Mapping[int, RankHistory]
    steps: tuple[float, ...] = ()  # seconds of the last steps of the first rank
    without_ranks: float = 0.0  # seconds since the last rank ended


@dataclass(frozen=True)
class Hangs:
    """The run hangs, because of these ranks; none: because of the agent, which does not notice that the ranks have ended."""

    ranks: tuple[int, ...]
    kind: Kind
    phase: str
    step: int
    seconds: float
    limit: float


def begun(now: float, ranks: int) -> History:
    return History(now, {rank: RankHistory() for rank in range(ranks)})


def after(history: History, now: float, seen: Mapping[int, Seen]) -> History:
    """The history with one more look."""
    passed = min(max(0.0, now - history.now), LOOK_LIMIT)
    ranks = {rank: rank_after(history.ranks.get(rank, RankHistory()), passed, look) for rank, look in seen.items()}
    first = min(seen)
    steps = (*history.steps, *step_seconds(history.ranks.get(first, RankHistory()), ranks[first], passed))[-STEPS:]
    ended = all(rank.sign is not None and not rank.lives for rank in ranks.values())
    return History(now, ranks, steps, history.without_ranks + passed if ended else 0.0)


def rank_after(before: RankHistory, passed: float, look: Seen) -> RankHistory:
    sign, last = look.sign, before.sign
    if sign is None or last is None or sign.process != last.process:
        waits = sign is None and last is None
        return RankHistory(sign, look.lives, *(2 * [before.quiet + passed] if waits else [0.0, 0.0]))
    return RankHistory(
        sign,
        look.lives,
        quiet=0.0 if sign != last else before.quiet + passed,
        still=0.0 if replace(sign, beats=0) != replace(last, beats=0) else before.still + passed,
        since_step=0.0 if sign.step != last.step or sign.phase != TRAINING else before.since_step + passed,
        waiting=before.waiting + passed if sign.place and (sign.place, sign.moves) == (last.place, last.moves) else 0.0,
    )


def step_seconds(before: RankHistory, now: RankHistory, passed: float) -> list[float]:
    """Of the steps between two looks; none where the rank did anything else in between."""
    if before.sign is None or now.sign is None or before.sign.process != now.sign.process:
        return []
    made = now.sign.step - before.sign.step
    return [(before.since_step + passed) / made] * min(made, STEPS) if made > 0 and before.sign.phase == now.sign.phase == TRAINING else []


def verdict(history: History, limits: Mapping[str, int]) -> Hangs | None:
    """None: the run goes on. `limits` are seconds by phase, 0: no limit."""
    if history.without_ranks > AGENT_SECONDS:
        return Hangs((), SILENT, TRAINING, 0, history.without_ranks, AGENT_SECONDS)
    watched = {rank: past for rank, past in history.ranks.items() if past.lives and limits[phase_of(past)] > 0}
    silent = {rank: past for rank, past in watched.items() if past.quiet > limit_of(past, history, limits)}
    if silent:
        return because_of(silent, SILENT, limit_of(silent[min(silent)], history, limits))
    living = {rank: past for rank, past in history.ranks.items() if past.lives}
    if not living or not living.keys() <= watched.keys():
        return None
    allowed = {rank: limit_of(past, history, limits) for rank, past in living.items()}
    behind = min(progress_of(past) for past in living.values())
    last = {rank: past for rank, past in living.items() if progress_of(past) == behind}
    if len(living) > 1 and all(past.waiting > allowed[rank] for rank, past in living.items()):
        return because_of(last, DEADLOCK, allowed[min(last)])
    if all(past.still > STILL * allowed[rank] for rank, past in living.items()):
        return because_of(last, STANDS_STILL, STILL * allowed[min(last)])
    return None


def because_of(ranks: Mapping[int, RankHistory], kind: Kind, limit: float) -> Hangs:
    past = ranks[min(ranks)]
    seconds = {SILENT: past.quiet, DEADLOCK: past.waiting, STANDS_STILL: past.still}[kind]
    return Hangs(tuple(sorted(ranks)), kind, phase_of(past), past.sign.step if past.sign else 0, seconds, limit)


def phase_of(past: RankHistory) -> str:
    return past.sign.phase if past.sign else STARTING


def progress_of(past: RankHistory) -> tuple[int, int]:
    return (past.sign.step, past.sign.moves) if past.sign else (0, 0)


def limit_of(past: RankHistory, history: History, limits: Mapping[str, int]) -> float:
    phase = phase_of(past)
    return max(float(limits[phase]), MEDIANS * median(history.steps) if phase == TRAINING and history.steps else 0.0)
