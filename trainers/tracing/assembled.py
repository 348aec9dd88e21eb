"""From the recorded first layers to the step of a whole model: layers that were not traced save what their kind saves."""

from dataclasses import dataclass, replace

from transformers import PreTrainedConfig

from conf.traces import TraceSettings
from trainers.tracing.live import BELOW, EMBEDDING, END, KEPT, LAYER, NORM
from trainers.tracing.model import Depth, shortened
from trainers.tracing.sizes import NOTHING, Batch, Moment, Phase, Vector, phases_of, plus
from trainers.tracing.step import record

BATCHES = (Batch(2, 512), Batch(3, 1024))  # samples and tokens grow by different factors, and so do their products


@dataclass(frozen=True)
class Trace:
    """Bytes are given for each of conf.traces.POWERS. The fields are those of the launcher's Trace."""

    last_state: int  # bytes of an element of the last hidden states
    buffers: int  # bytes of tensors that are no weights, as causal masks of some families
    kept: Vector  # when the model has returned its last hidden states
    passing: list[Moment]  # of one layer's forward pass, beyond what was there
    forward: list[Moment]  # of the last layer's and the last norm's
    norm: list[Moment]  # of the last norm's backward pass
    last: list[Moment]  # of the last layer's
    first: list[Moment]  # of the first layer's
    end: list[Moment]  # below it


def traced(config: PreTrainedConfig, depth: Depth, settings: TraceSettings) -> Trace:
    """
    Raises:
        ValueError: where an architecture's bytes do not grow as samples and tokens do.
    """
    short = shortened(config, depth.traced)
    (small, element), (large, _) = (record(short, settings, batch.samples, batch.length) for batch in BATCHES)
    phases = phases_of(small, large, BATCHES)
    named = {phase.name: phase for phase in phases}
    last = depth.traced - 1
    growing = unseen(depth, {number: growth(named, number, last) for number in range(depth.traced)})
    keeping = unseen(depth, {number: named[f"{LAYER} {number}"].kept for number in range(depth.traced)})
    forward = [*named[f"{LAYER} {last}"].moments, *named[NORM].moments]
    begin = named[f"{LAYER} {last}"].begin
    return Trace(
        last_state=element,
        buffers=depth.buffers,
        kept=plus(named[KEPT].begin, keeping),
        passing=[without(moment, begin) for moment in named[f"{LAYER} {last}"].moments],
        forward=[beyond(moment, growing) for moment in forward],
        norm=[beyond(moment, keeping) for moment in named[KEPT].moments],
        last=[beyond(moment, keeping) for moment in named[f"{BELOW} {last}"].moments],
        first=named[f"{BELOW} 0"].moments,
        end=ended(phases, named),
    )


def ended(phases: list[Phase], named: dict[str, Phase]) -> list[Moment]:
    """Where embeddings get their gradients; where they get none, below the first layer, or when its backward pass is over."""
    embedded = [moment for phase in phases if phase.name == EMBEDDING for moment in phase.moments]
    return embedded or (named[END].moments if END in named else [Moment(named[f"{BELOW} 0"].finish)])


def growth(named: dict[str, Phase], number: int, last: int) -> Vector:
    following = named[NORM] if number == last else named[f"{LAYER} {number + 1}"]
    return plus(following.begin, named[f"{LAYER} {number}"].begin, -1)


def unseen(depth: Depth, by_layer: dict[int, Vector]) -> Vector:
    """Of all layers that were not traced: as the last one of their kind between the first and the last."""
    whole = NOTHING
    for kind, count in depth.missing.items():
        alike = max(number for number in range(1, depth.traced - 1) if depth.kinds[number] == kind)
        whole = plus(whole, by_layer[alike], count)
    return whole


def beyond(moment: Moment, more: Vector) -> Moment:
    return replace(moment, bytes=plus(moment.bytes, more))


def without(moment: Moment, less: Vector) -> Moment:
    return replace(moment, bytes=plus(moment.bytes, less, -1))
