"""Two recordings of one step become bytes in terms of the batch: a tensor is a product of sizes, and its growth shows which are the batch's."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby

from conf.traces import POWERS
from trainers.tracing.live import ATTENTION, FREED, GRADIENT, KEPT, MADE, PHASE, SUM, Recording

Vector = tuple[float, ...]  # bytes for each of POWERS
NOTHING: Vector = (0.0,) * len(POWERS)
OFF = 0.005  # share of the largest moment by which the terms may miss the smaller batch


@dataclass(frozen=True)
class Moment:
    """Bytes that are alive, beside the weights and the gradients that are complete."""

    bytes: Vector
    gradients: int = 0  # elements that have one since the phase began
    attention: bool = False  # a kernel of attention's backward pass is at work
    columns: int = 0  # of a sum over all rows that is at work

    def covers(self, other: "Moment") -> bool:
        return (
            all(mine >= its for mine, its in zip(self.bytes, other.bytes, strict=True))
            and self.gradients >= other.gradients
            and self.attention >= other.attention
            and self.columns >= other.columns
        )


@dataclass
class Phase:
    name: str
    begin: Vector
    finish: Vector = NOTHING
    kept: Vector = NOTHING  # of what was made in it, the bytes that are there when the model has returned
    moments: list[Moment] = field(default_factory=list)


@dataclass(frozen=True)
class Batch:
    samples: int
    length: int

    def power(self, exponents: tuple[int, int]) -> int:
        return self.samples ** exponents[0] * self.length ** exponents[1]

    def of(self, vector: Vector) -> float:
        return sum(value * self.power(exponents) for value, exponents in zip(vector, POWERS, strict=True))


def phases_of(small: Recording, large: Recording, batches: tuple[Batch, Batch]) -> list[Phase]:
    """The phases of a step with the moments that no other of the same phase covers.

    Raises:
        ValueError: where the two do not run through the same operations, or bytes grow in another way than by products of samples and tokens.
    """
    events = ordered(small)
    if events != ordered(large):
        raise ValueError("its operations depend on the size of the batch")
    vectors = [vector_of(*sizes, batches) for sizes in zip(small.sizes, large.sizes, strict=True)]
    whole_rows = [of_tokens(rows, batches) for rows in zip(small.rows, large.rows, strict=True)]
    refuse_other_growth(events, small, vectors, batches[0])
    phases = list(walked(events, vectors, whole_rows))
    for phase in phases:
        phase.moments = uncovered(phase.moments)
    return phases


def ordered(recording: Recording) -> list[tuple[str, int | str]]:
    """What is freed at once is freed in no order."""
    grouped = ((kind, list(group)) for kind, group in groupby(recording.events, key=lambda event: event[0]))
    return [event for kind, group in grouped for event in (sorted(group) if kind == FREED else group)]


def vector_of(small: int, large: int, batches: tuple[Batch, Batch]) -> Vector:
    """The power of the batch that the growth comes closest to."""
    growth = large / small
    best = min(range(len(POWERS)), key=lambda index: abs(growth - batches[1].power(POWERS[index]) / batches[0].power(POWERS[index])))
    return tuple(large / batches[1].power(exponents) if index == best else 0.0 for index, exponents in enumerate(POWERS))


def of_tokens(rows: tuple[int, int], batches: tuple[Batch, Batch]) -> bool:
    return all(count == batch.samples * batch.length for count, batch in zip(rows, batches, strict=True))


def refuse_other_growth(events: list[tuple[str, int | str]], recording: Recording, vectors: list[Vector], batch: Batch) -> None:
    true, said, most, error = 0.0, 0.0, 0.0, 0.0
    for kind, value in events:
        if kind in (MADE, FREED):
            sign = 1 if kind == MADE else -1
            true += sign * recording.sizes[int(value)]
            said += sign * batch.of(vectors[int(value)])
            most, error = max(most, true), max(error, abs(true - said))
    if error > OFF * most:
        raise ValueError(f"{error / most:.1%} of its bytes grow in another way than samples and tokens")


def walked(events: list[tuple[str, int | str]], vectors: list[Vector], whole_rows: list[bool]) -> Iterator[Phase]:
    phase, now, gradients, sums, grew = Phase("", NOTHING), NOTHING, 0, iter(whole_rows), True
    alive: dict[int, Phase] = {}

    def note(attention: bool = False, columns: int = 0) -> None:
        phase.moments.append(Moment(now, gradients, attention, columns))

    for kind, value in events:
        if kind == MADE:
            now, grew = plus(now, vectors[int(value)]), True
            alive[int(value)] = phase
            continue
        if grew and kind in (FREED, PHASE, GRADIENT):
            note()
            grew = False
        if kind == FREED:
            now = plus(now, vectors[int(value)], -1)
            del alive[int(value)]
        elif kind == GRADIENT:
            gradients += int(value)
            note()
        elif kind == ATTENTION:
            note(attention=True)
        elif kind == SUM:
            columns = int(value) if next(sums) else 0
            note(columns=columns)
        elif kind == PHASE:
            if phase.name:
                phase.finish = now
                yield phase
            if value == KEPT:
                for number, maker in alive.items():
                    maker.kept = plus(maker.kept, vectors[number])
            phase, gradients = Phase(str(value), now), 0
            note()
    note()
    phase.finish = now
    yield phase


def plus(first: Vector, second: Vector, factor: int = 1) -> Vector:
    return tuple(left + factor * right for left, right in zip(first, second, strict=True))


def uncovered(moments: list[Moment]) -> list[Moment]:
    kept: list[Moment] = []
    for moment in sorted(set(moments), key=lambda each: (sum(each.bytes), each.gradients, each.attention, each.columns), reverse=True):
        if not any(other.covers(moment) for other in kept):
            kept.append(moment)
    return kept
