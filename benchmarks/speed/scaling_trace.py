"""What the GPU of one rank did in traced steps: kernels by kind, and how much of what goes between GPUs nothing else hides."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.speed.profile_cell import group_of

SHOWN = 40
Span = tuple[float, float]  # begin and end, seconds


@dataclass(frozen=True)
class Kernel:
    name: str
    begin: float  # seconds
    end: float

    @property
    def between_gpus(self) -> bool:
        return "nccl" in self.name.lower()


def kernels_of(trace: Any) -> list[Kernel]:
    """Of a torch.profiler.profile that has ended: what ran on the GPU."""
    events = trace.profiler.kineto_results.events()
    on_gpu = [event for event in events if str(event.device_type()).endswith("CUDA")]
    return [Kernel(event.name(), event.start_ns() / 1e9, (event.start_ns() + event.duration_ns()) / 1e9) for event in on_gpu]


def union(spans: Iterable[Span]) -> list[Span]:
    """Disjoint spans in their order, of spans that may overlap."""
    merged = list[Span]()
    for begin, end in sorted(spans):
        if merged and begin <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((begin, end))
    return merged


def length(spans: Iterable[Span]) -> float:
    return sum(end - begin for begin, end in spans)


def summed_up(kernels: Sequence[Kernel], seconds: float, steps: int) -> dict[str, Any]:
    """Milliseconds a step. `exposed`: only what goes between GPUs runs; `idle`: nothing does."""
    scale = 1e3 / steps
    sent = union((kernel.begin, kernel.end) for kernel in kernels if kernel.between_gpus)
    computed = union((kernel.begin, kernel.end) for kernel in kernels if not kernel.between_gpus)
    busy = length(union([*sent, *computed]))
    groups, names = defaultdict[str, float](float), defaultdict[str, list[float]](list)
    for kernel in kernels:
        groups["between GPUs" if kernel.between_gpus else group_of(kernel.name)] += scale * (kernel.end - kernel.begin)
        names[kernel.name].append(kernel.end - kernel.begin)
    longest = sorted(names.items(), key=lambda pair: -sum(pair[1]))[:SHOWN]
    return {
        "step": scale * seconds,
        "computing": scale * length(computed),
        "between_gpus": scale * length(sent),
        "exposed": scale * (busy - length(computed)),
        "idle": scale * (seconds - busy),
        "groups": {name: round(spent, 3) for name, spent in sorted(groups.items(), key=lambda pair: -pair[1])},
        "kernels": [{"name": name[:120], "ms": round(scale * sum(spent), 3), "calls": len(spent) / steps} for name, spent in longest],
    }
