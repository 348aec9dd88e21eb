"""What a trace says of the layers of a family without a table (trainers/tracing), in terms of the batch."""

from dataclasses import dataclass

from conf.traces import POWERS

Vector = tuple[float, ...]  # bytes for each of POWERS


def bytes_of(vector: Vector, samples: int, length: int) -> int:
    """Of one batch, whose samples are all as long."""
    return int(sum(value * int(samples**first * length**second) for value, (first, second) in zip(vector, POWERS, strict=True)))


@dataclass(frozen=True)
class TracedMoment:
    """Bytes that are alive beside weights and complete gradients."""

    bytes: Vector
    gradients: int  # elements that have a gradient since the layer's backward pass began
    attention: bool  # a kernel of attention's backward pass is at work
    columns: int  # of a sum over all tokens that is at work


@dataclass(frozen=True)
class Trace:
    """Of the whole model, as trainers/tracing/assembled.py describes each field."""

    last_state: int
    buffers: int
    kept: Vector
    passing: tuple[TracedMoment, ...]
    forward: tuple[TracedMoment, ...]
    norm: tuple[TracedMoment, ...]
    last: tuple[TracedMoment, ...]
    first: tuple[TracedMoment, ...]
    end: tuple[TracedMoment, ...]


@dataclass(frozen=True)
class Untraceable:
    """An architecture that cannot be traced under some settings."""

    reason: str
