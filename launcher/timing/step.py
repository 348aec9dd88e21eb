"""The time of an optimizer step, in closed form: what the GPU does, what it waits for, and how far the sum may be off."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from conf.optimizers import optimizer_row
from conf.ranks import ranks
from conf.schema import Lora, Qlora, Run, SettledNode
from conf.shardings import sharding_row
from conf.stages import compares_joined, stage_row
from launcher.facts.model import ModelFacts
from launcher.facts.node import is_before_ampere
from launcher.memory.cards import SLICE
from launcher.memory.stages import sample_tokens
from launcher.memory.weights.split import split_of
from launcher.timing.launches import HostWork, host_work
from launcher.timing.links import HOST_MEMORY, LINK_SHARE, exchange_of, gathering_host, hooked_tensors
from launcher.timing.products import attention_load, dequantising_load, product_loads
from launcher.timing.rates import H200, Host, Rates, attention_rate, data_sheet, pcie, rates_of
from launcher.timing.traffic import compares_row_by_row, optimizer_load, traffic_loads
from launcher.timing.work import Load, Work, work_of

# The GPU works on what was started before while the host starts more: the longer of both counts, and near to equal neither hides the other. These
# powers fit the cells of benchmarks/speed/host_rates.py best. Where answers are compared, the host reads numbers from the GPU within a step.
OVERLAP, OVERLAP_FUSED, OVERLAP_COMPARING = 6, 8, 3
STEP = 0.002  # seconds of the trainer once a step


@dataclass(frozen=True)
class TimeTerm:
    name: str
    seconds: float  # of one optimizer step
    source: str


@dataclass(frozen=True)
class StepTime:
    """Of one optimizer step on every rank. Without start, evaluations and checkpoints."""

    terms: tuple[TimeTerm, ...]
    tokens: int  # of a step, over all ranks, at most
    missing: tuple[str, ...]  # why it is no prediction; the terms then only put runs in an order
    share: float  # of the seconds, to both sides
    source: str  # how that is known

    @cached_property
    def seconds(self) -> float:
        return sum(term.seconds for term in self.terms)

    @property
    def low(self) -> float:
        return self.seconds / (1 + self.share)

    @property
    def high(self) -> float:
        return self.seconds * (1 + self.share)

    def as_dict(self) -> dict[str, Any]:
        """For programs; times are seconds of one optimizer step. None where a term is missing."""
        known = not self.missing
        return {
            "step": self.seconds if known else None,
            "low": self.low if known else None,
            "high": self.high if known else None,
            "tokens_per_second": self.tokens / self.seconds if known else None,
            "terms": {term.name: term.seconds for term in self.terms} if known else {},
            "missing": list(self.missing),
            "source": self.source if known else None,
        }


def step_time(run: Run, facts: ModelFacts) -> StepTime:
    """Where a rate is not known, that of an H200 stands in its place, and `missing` says so."""
    work, known = work_of(run, facts), rates_of(run.node)
    rates = known or H200
    passes = pass_terms(work, rates)
    share, source = uncertainty(work, rates, passes)
    return StepTime(
        terms=(*passes, *once_terms(work, rates), *exchange_terms(work)),
        tokens=run.training.effective_batch * sample_tokens(run),
        missing=missing(work, known),
        share=share,
        source=source,
    )


def step_seconds(run: Run, facts: ModelFacts) -> float:
    """The same without what a plan says of them: to put forms of one run in the order of their speed, on any node."""
    work, rates = work_of(run, facts), rates_of(run.node) or H200
    return sum(term.seconds for term in (*pass_terms(work, rates), *once_terms(work, rates), *exchange_terms(work)))


def pass_terms(work: Work, rates: Rates) -> tuple[TimeTerm, ...]:
    """Of all micro-batches of a rank."""
    passes, found = work.run.training.accumulation, loads(work)
    on_gpu = [TimeTerm(load.name, passes * seconds(load, work, rates), SOURCES[load.kind]) for load in found]
    asked, gathers = host_work(work), gathering_host(work)
    own = rates.fused if work.arithmetic.fused else rates.plain
    busy, host = sum(term.seconds for term in on_gpu) / passes, host_seconds(asked, own, passes) + gathers
    power = overlap(work)
    waiting = passes * ((busy**power + host**power) ** (1 / power) - busy)
    gathered = f" and {1e3 * gathers:,.0f} ms of the sharding engine" if gathers else ""
    started = f"{asked.kernels:,.0f} kernels a micro-batch in {1e3 * (host - gathers):,.0f} ms of the host{gathered}, while the GPU works"
    return (*on_gpu, TimeTerm("waiting for the host", waiting, started))


def overlap(work: Work) -> int:
    if compares_row_by_row(work.run):
        return OVERLAP_COMPARING
    return OVERLAP_FUSED if work.arithmetic.fused else OVERLAP


def host_seconds(asked: HostWork, host: Host, passes: int) -> float:
    """Of one micro-batch of `passes`, with its share of what is done once a step."""
    once = host.step + host.module * asked.walked
    each = host.kernel * asked.kernels + host.function * asked.functions + host.dequantised * asked.dequantised + host.repeated * asked.repeated
    return each + host.module * asked.left_out + once / passes


def loads(work: Work) -> tuple[Load, ...]:
    """Of one micro-batch."""
    dequantising = dequantising_load(work)
    every = (*product_loads(work), attention_load(work), *((dequantising,) if dequantising else ()), *traffic_loads(work))
    return tuple(load for load in every if load.operations or load.bytes)


SOURCES: Mapping[str, str] = {
    "products": "2 operations an element and token; each matrix passes through memory once",
    "attention": "of the causal half, by the measured rate of its kernel",
    "traffic": "bytes that are read and written",
    "dequantising": "packed weights read, 16-bit ones written, in each pass",
}


def seconds(load: Load, work: Work, rates: Rates) -> float:
    match load.kind:
        case "products":
            return load.operations / rates.products + load.bytes / rates.operands
        case "attention":
            return load.operations / attention_rate(rates, attention_kernel(work, rates), work.facts.head_dim, work.length)
        case "dequantising":
            return load.bytes / rates.dequantising
        case "traffic":
            return load.bytes / rates.traffic


def attention_kernel(work: Work, rates: Rates) -> str:
    """trainers/kernels/attention.py: cuDNN's for the fused kernels' rows of full length, which an upper bound of time counts with."""
    run = work.run
    whole = run.training.kernels == "fused" and not run.data.packing and not compares_joined(run) and work.facts.sliding_window is None
    return "cudnn" if whole and rates.hopper and work.facts.head_dim <= 128 else "flash"


def once_terms(work: Work, rates: Rates) -> tuple[TimeTerm, ...]:
    """Once a step: the optimizer, where the GPU does it, and what the trainer does around it."""
    split, optimizer = split_of(work.run), optimizer_load(work, split_of(work.run).states)
    on_gpu = () if split.host_states else (TimeTerm("optimizer", optimizer.bytes / rates.traffic, "gradients, weights and states, read and written"),)
    return (*on_gpu, TimeTerm("trainer", STEP, "once a step"))


def exchange_terms(work: Work) -> tuple[TimeTerm, ...]:
    """Added and not overlapped: the rate of a link is a share of what it states, for what overlaps slows the products."""
    run, exchange = work.run, exchange_of(work)
    rate, sort = link_rate(run)
    hooks = sharding_row(run.sharding.name).hook * hooked_tensors(work) * run.training.accumulation
    by_pcie = pcie(run.node)
    terms = (
        TimeTerm("gathering weights", exchange.gathered / rate, f"{exchange.gathered / 1e9:,.1f} GB a GPU at {rate / 1e9:,.0f} GB/s {sort}"),
        TimeTerm("reducing gradients", exchange.reduced / rate, f"{exchange.reduced / 1e9:,.1f} GB a GPU at {rate / 1e9:,.0f} GB/s {sort}"),
        TimeTerm("sharding engine", hooks, f"{hooked_tensors(work)} tensors in each micro-batch"),
        TimeTerm("offloading", exchange.offloaded / by_pcie, f"{exchange.offloaded / 1e9:,.1f} GB a GPU at {by_pcie / 1e9:,.0f} GB/s of PCIe"),
        TimeTerm("optimizer on the CPU", exchange.on_host / HOST_MEMORY, f"{exchange.on_host / 1e9:,.1f} GB of host memory; its rate is assumed"),
    )
    return tuple(term for term in terms if term.seconds)


def link_rate(run: Run) -> tuple[float, str]:
    """Bytes a second, and of what: a ring is as fast as its slowest link."""
    within = LINK_SHARE * stated_link(run.node)
    if run.cluster.nodes == 1 or run.node.network is None:
        return within, f"({LINK_SHARE:.0%} of the link between GPUs)"
    between = run.node.network * 1e9
    return (between, "(node.network)") if between < within else (within, f"({LINK_SHARE:.0%} of the link between GPUs)")


def stated_link(node: SettledNode) -> float:
    sheet = data_sheet(node)
    return node.link * 1e9 if node.link is not None else sheet[1] if sheet else pcie(node)


def missing(work: Work, rates: Rates | None) -> tuple[str, ...]:
    """What no term stands for, in words that follow "because"."""
    run = work.run
    training, regime, optimizer = run.training, run.regime, optimizer_row(run.optim.name)
    rows = (
        (not run.node.gpus, "the rates of CPUs were not measured"),
        (run.node.gpus > 0 and not run.node.tflops, "node.tflops of this node is not known"),
        (run.node.gpus > 0 and bool(run.node.tflops) and rates is None, f"there is no row for the memory of {run.node.gpu_name or 'this GPU'}"),
        (re.search(SLICE, run.node.gpu_name or "") is not None, "a slice of a card (MIG) was not timed"),
        (run.cluster.nodes > 1 and run.node.network is None, "node.network is not stated: the GB/s that one node sends to another"),
        (
            is_before_ampere(run.node.gpu_name) and training.precision in ("bf16", "bf16_amp"),
            f"{run.node.gpu_name} has no products in bf16 (with training.precision=fp16_amp it has those of its data sheet)",
        ),
        (stage_row(run.stage.name).learns == "own answers", f"stage={run.stage.name} writes answers, which was not timed"),
        (training.precision == "fp32", "training.precision=fp32 was not timed"),
        (training.attention == "eager", "training.attention=eager was not timed"),
        (training.fp8, "training.fp8=true was not timed"),
        (training.deterministic, "training.deterministic=true was not timed"),
        (isinstance(regime, Qlora) and regime.bits != 4 and not regime.dequantised, f"regime.bits={getattr(regime, 'bits', None)} was not timed"),
        (isinstance(regime, Lora) and regime.dora, "regime.dora=true was not timed"),
        (optimizer.step in ("orthogonal", "projected") or optimizer.paged, f"optim={run.optim.name} was not timed"),
    )
    return tuple(why for applies, why in rows if applies)


def uncertainty(work: Work, rates: Rates, passes: Sequence[TimeTerm]) -> tuple[float, str]:
    """The largest that applies, the first of several. Where the host takes as long as the GPU, `passes` wait for a part of what the GPU does."""
    run, waiting = work.run, passes[-1].seconds
    by_sheet = f"not measured on this card ({run.node.gpu_name}): by its data sheet"
    waits = waiting > (2 ** (1 / overlap(work)) - 1) * sum(term.seconds for term in passes[:-1])
    unknown = waits and run.node.python_turn is None
    rows = (
        (0.1, True, "measured on one H200 (docs/concepts/predicted_time.md)"),
        (0.25, work.facts.mixture or not work.facts.traits.traced, f"no {work.facts.family} was timed"),
        (0.3, ranks(run) > 1, "one model on two H200s was measured"),
        (0.45, waits, "the GPU waits for the host, whose speed differs"),
        (1.0, unknown and not rates.measured, by_sheet),
        (1.0, unknown, "the GPU waits for the host, whose speed is not stated (node.python_turn, from regimen doctor)"),
        (0.5, run.cluster.nodes > 1, "several nodes were not measured; gathers and reductions are counted as if nothing of them overlapped"),
        (0.5, not rates.measured, by_sheet),
        (0.5, stage_row(run.stage.name).learns == "comparison", "comparing answers took up to half as long again on one H200"),
        (1.0, split_of(run).host_states, "offloading was not measured"),
    )
    return max(((share, why) for share, applies, why in rows if applies), key=lambda row: row[0])
