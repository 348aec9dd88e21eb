"""What training.fit chooses: the fastest permitted combination of micro-batch, gradient checkpointing, kernels, loss and sharding, as far as each is
left open (launcher/gate/left_open.py). The choice may change rounding and time, never the mathematics: the samples of a step stay those that
training.effective_batch or the defaults state, and so does a micro-batch on which the loss depends.

"Fastest" is the order of the predicted seconds of a step (launcher/timing/step.py); where no rate of the node is known, the rates of an H200 order
the runs. From SATURATED_TOKENS tokens of a micro-batch on no larger one is looked at. Every sample counts as long as data.cutoff: where most are
shorter, larger micro-batches are worth more than counted, and padding makes them worth less.

In each of the six jobs of benchmarks/results/speed/h200_fit.jsonl, 0.5 to 8 billion parameters on one H200, this order puts the fastest of all
permitted combinations first.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from itertools import product
from math import ceil, inf

from conf.choices import choice, has_file
from conf.exchanges import reshards
from conf.kernels import FUSED_FAMILIES
from conf.ranks import ranks
from conf.schema import Fsdp, Run, Sharding
from conf.shardings import SHARDINGS, sharding_row
from conf.stages import stage_row
from launcher.facts.model import ModelFacts
from launcher.gate.changes import as_override, trained, with_micro_batch
from launcher.gate.left_open import BATCH_AND_SHARDING, Open
from launcher.gate.verdict import Verdict
from launcher.memory.stages import sample_tokens
from launcher.memory.step.fused_reach import fused_unknown
from launcher.memory.weights.parameters import census_of
from launcher.rules.attention import chosen_attention, on_old_gpu
from launcher.rules.layer_pairs import NO_RECOMPUTATION, can_recompute
from launcher.rules.model_limits import layers_counted
from launcher.rules.pairs import incompatibilities
from launcher.timing.step import step_seconds
from launcher.words import plural

Tried = tuple[Run, Verdict]

LEAST_GAIN = 0.05  # that a sharding must promise to come before the one that splits less: no gain of one over another was measured
SATURATED_TOKENS = 16384  # no measured pass was longer; from 8,192 to 16,384 tokens the gain was 2 to 8 %


def fitted(
    run: Run, facts: ModelFacts, judge: Callable[[Run], Verdict], samples: int | None = None, left: Open = BATCH_AND_SHARDING
) -> tuple[Run, tuple[str, ...]]:
    """The fastest permitted form of a settled run, and why: a sentence, and a line for each key that was left open. Where none is permitted, the one
    that comes closest. What was not asked for (training.fit=null) must not end a run that would have fitted: a form whose need lies so near to the
    limit that the estimate may be wrong about it is then taken only where no other is permitted, the one that leaves most.

    `samples`: training samples where they are known; every rank needs one whole micro-batch of them.
    """
    tried = [(candidate, judge(candidate)) for candidate in candidates(run, samples, left)]
    if left.checkpointing:
        tried += by_layers(tried, facts, judge)
    tried.sort(key=lambda each: (slowness(each[0], facts), each[0].training.micro_batch))
    by_speed, verdicts = [candidate for candidate, _ in tried], [verdict for _, verdict in tried]
    permitted = [index for index, verdict in enumerate(verdicts) if verdict.permitted]
    if not permitted:
        best = min(range(len(by_speed)), key=lambda index: (*shortage(verdicts[index]), index))
        return by_speed[best], (f"none of the {len(by_speed)} combinations is permitted; {named(by_speed[best])} comes closest",)
    sure = [index for index in permitted if is_sure(by_speed[index], verdicts[index])]
    first = sure[0] if sure else max(permitted, key=lambda index: (verdicts[index].headroom, -index))
    chosen = by_speed[first]
    order = "in the order of speed" if sure else "by the memory that it leaves"
    head = f"{named(chosen)} comes first {order} of the {len(permitted)} permitted of {len(by_speed)} combinations"
    return chosen, (head, *lines(run, chosen, left, obstacles(chosen, by_speed[:first], verdicts)))


def is_sure(candidate: Run, verdict: Verdict) -> bool:
    return verdict.permitted and (candidate.training.fit == "auto" or not verdict.close)


def by_layers(tried: Sequence[Tried], facts: ModelFacts, judge: Callable[[Run], Verdict]) -> list[Tried]:
    """For each combination that fits with all layers computed again and not without: the fewest layers with which it fits, and one layer less, which
    does not. Left out where another is faster than it could be."""
    fastest = min((slowness(candidate, facts) for candidate, verdict in tried if is_sure(candidate, verdict)), default=inf)
    whole = [candidate for candidate, verdict in tried if candidate.training.gradient_checkpointing is True and is_sure(candidate, verdict)]
    found: list[Tried] = []
    for candidate, verdict in tried:
        again = trained(candidate, gradient_checkpointing=True)
        too_large = candidate.training.gradient_checkpointing is False and not is_sure(candidate, verdict) and again in whole
        if (
            too_large
            and slowness(candidate, facts) < fastest
            and layers_counted(facts)
            and not incompatibilities(trained(again, gradient_checkpointing=1))
        ):
            found += fewest_layers(candidate, census_of(candidate, facts).depth, judge)
    return found


def fewest_layers(run: Run, depth: int, judge: Callable[[Run], Verdict]) -> list[Tried]:
    """By halves: each layer more needs less. `depth` of them fit, none do not."""
    known: dict[int, Tried] = {}
    low, high = 0, depth
    while high - low > 1:
        count = (low + high) // 2
        candidate = trained(run, gradient_checkpointing=count)
        known[count] = candidate, judge(candidate)
        low, high = (low, count) if is_sure(*known[count]) else (count, high)
    return [known[count] for count in (low, high) if count in known]


def candidates(run: Run, samples: int | None, left: Open = BATCH_AND_SHARDING) -> Iterator[Run]:
    """Every combination that can work and keeps the effective batch."""
    split = shardings(run) if left.sharding else forms(run.sharding, run) if left.gathered else [run.sharding]
    recomputing = (False, True) if left.checkpointing else (run.training.gradient_checkpointing,)
    sizes = micro_batches(run, samples) if left.micro_batch else [run.training.micro_batch]
    for computed, sharding, checkpointing, size in product(computations(run, left), split, recomputing, sizes):
        candidate = with_micro_batch(trained(replace(computed, sharding=sharding), gradient_checkpointing=checkpointing), size)
        if not incompatibilities(candidate):
            yield candidate


def computations(run: Run, left: Open) -> list[Run]:
    """By kernels and loss, the preferred ones first."""
    kernels = ("fused", "plain") if left.kernels and why_plain(run, left) is None else (run.training.kernels,)
    return [with_kernels(run, name, loss, left) for name in kernels for loss in losses(run, name, left)]


def losses(run: Run, kernels: str, left: Open) -> tuple[str, ...]:
    """The fused kernels were measured with their own loss; beside the plain ones liger's saves memory and no time. A stage that compares answers has
    the plain loss and, with fused kernels, the chunked one."""
    if not (left.loss and run.node.gpus and installed()):
        return (run.training.loss,)
    if compares(run):
        return ("plain", "chunked") if kernels == "fused" else ("plain",)
    return ("fused", "plain") if kernels == "fused" else ("plain", "fused")


def with_kernels(run: Run, kernels: str, loss: str, left: Open) -> Run:
    changed = trained(run, kernels=kernels, loss=loss)
    return trained(changed, attention=chosen_attention(changed)) if left.attention else changed


def why_plain(run: Run, left: Open) -> str | None:
    """What keeps the fused kernels from being chosen. A part of it does not keep them from being stated."""
    training, family = run.training, run.model.architecture.get("model_type")
    rows = (
        (not installed(), "liger-kernel and triton, which the fused kernels need, are not installed here (`pip install 'regimen[gpu]'`)"),
        (on_old_gpu(run), "the fused kernels need a GPU of the Ampere generation or newer"),
        (family not in FUSED_FAMILIES, f"the fused kernels were not compared for {family}"),
        (training.precision == "fp32", "the fused kernels were not measured with training.precision=fp32"),
        (len(run.model.added_tokens) > 0, "the fused kernels were not tried with model.added_tokens"),
        (compares(run), "the fused kernels ran on GPUs in two runs alone of stages that compare answers"),
        (fused_unknown(run) is not None, f"the memory of the fused kernels is not predicted with {fused_unknown(run)}"),
    )
    refused = incompatibilities(with_kernels(run, "fused", "plain", left))
    return next((why for applies, why in rows if applies), refused[0].why if refused else None)


def compares(run: Run) -> bool:
    return stage_row(run.stage.name).learns == "comparison"


def installed() -> bool:
    """The extra `gpu`, where this runs: the environment of the ranks too, on this machine or through Slurm."""
    return all(find_spec(name) is not None for name in ("liger_kernel", "triton"))


def shardings(run: Run) -> list[Sharding]:
    """One rank has nothing to split, a CPU nowhere else to move to; fields that the user set of the given choice stay. A sharding without a built-in
    file is kept where it is given, and never chosen."""
    given = run.sharding
    known = [(name, row) for name, row in SHARDINGS.items() if name == given.name or has_file("sharding", name)]
    there = [(name, row) for name, row in known if run.node.gpus or not row.offloads]
    useful = [name for name, row in there if ranks(run) > 1 or not row.splits or row.offloads]
    return [form for name in useful for form in forms(given if name == given.name else choice("sharding", name), run)]


def forms(sharding: Sharding, run: Run) -> list[Sharding]:
    """As it is and, where its key leaves that open, with gathered weights that stay until the backward pass."""
    if isinstance(sharding, Fsdp) and sharding.reshard_after_forward is None and ranks(run) > 1:
        return [sharding, replace(sharding, reshard_after_forward=False)]
    return [sharding]


def micro_batches(run: Run, samples: int | None) -> list[int]:
    share = run.training.effective_batch // ranks(run)
    saturated = ceil(SATURATED_TOKENS / sample_tokens(run))
    there = share if samples is None else max(1, samples // ranks(run))
    return [size for size in range(1, min(share, saturated, there) + 1) if share % size == 0]


def slowness(run: Run, facts: ModelFacts) -> float:
    """Seconds of a step, or on a node whose rates are not known what stands in their place; a little more for what splits more."""
    return step_seconds(run, facts) * (1 + LEAST_GAIN * sharding_row(run.sharding.name).saving)


def shortage(verdict: Verdict) -> tuple[int, int]:
    """How far a verdict is from a permit: the checks that failed, and the bytes that are missing."""
    failed = [check for check in verdict.checks if check.binding and not check.passed]
    return len(failed), max(0, -verdict.headroom)


def obstacles(chosen: Run, faster: Sequence[Run], verdicts: Sequence[Verdict]) -> dict[str, str]:
    """For each part of the choice, why the next faster one was not chosen: everything faster is refused, or too close to the limit."""
    nearest: dict[str, str] = {}
    for candidate, verdict in zip(faster, verdicts, strict=False):
        own, theirs = parts(chosen), parts(candidate)
        differing = [key for key in {**own, **theirs} if own.get(key) != theirs.get(key)]
        if len(differing) == 1:
            failed = next((f"{check.rule}: {check.sentence}" for check in verdict.checks if check.binding and not check.passed), None)
            instead = theirs.get(differing[0], f"plain {differing[0]}")
            nearest[differing[0]] = f"{instead} instead would come before it, but {failed or f'{verdict.close}.'}"
    return nearest


def lines(run: Run, chosen: Run, left: Open, against: Mapping[str, str]) -> list[str]:
    """One for each key that was left open: its value and why it has it. `run` is the one that was to be fitted."""
    training = chosen.training
    first = "first in the order of speed"
    kernels = why_plain(run, left) if training.kernels == "plain" else "the same mathematics in less time"
    whole = "nothing is computed twice, and all activations fit" if can_recompute(chosen.model.architecture) else NO_RECOMPUTATION
    losses_why = {"fused": "one kernel, whose logits are never whole", "plain": "its logits fit", "chunked": "its logits would not fit whole"}
    rows = (
        (left.micro_batch, "micro_batch", against.get("micro-batch", f"{first}; a step keeps its {training.effective_batch} samples")),
        (left.checkpointing, "gradient_checkpointing", against.get("checkpointing", first if training.gradient_checkpointing else whole)),
        (left.kernels, "kernels", against.get("kernels", kernels or first)),
        (left.loss, "loss", against.get("loss", losses_why[training.loss])),
        (left.attention, "attention", "the first of varlen, sdpa and eager that works with these kernels and rows"),
    )
    said = [f"training.{key}={as_override(getattr(training, key))}: {why}" for is_open, key, why in rows if is_open]
    split = left.sharding or chosen.sharding != run.sharding
    return [*said, *([f"{sharding_words(chosen.sharding)}: {against.get('sharding', first)}"] if split else [])]


def parts(run: Run) -> dict[str, str]:
    training = run.training
    return {
        "micro-batch": f"micro-batch {training.micro_batch}",
        "checkpointing": checkpointing_words(training.gradient_checkpointing),
        **({"kernels": "fused kernels"} if training.kernels == "fused" else {}),
        **({"loss": f"{training.loss} loss"} if training.loss != "plain" else {}),
        "sharding": sharding_words(run.sharding),
    }


def sharding_words(sharding: Sharding) -> str:
    kept = isinstance(sharding, Fsdp) and not reshards(sharding)
    return f"sharding={sharding.name}{' sharding.reshard_after_forward=false' if kept else ''}"


def checkpointing_words(value: bool | int) -> str:
    if isinstance(value, bool):
        return f"{'' if value else 'no '}gradient checkpointing"
    return f"gradient checkpointing of {plural(value, 'layer')}"


def named(run: Run) -> str:
    return ", ".join(parts(run).values())
