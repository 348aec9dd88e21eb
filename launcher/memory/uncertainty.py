"""How far an estimate may be from the truth: what the runs on record showed of jobs of its kind."""

from dataclasses import replace

from conf.schema import Fsdp, Lora, Qlora, Zero
from conf.stages import compares_joined
from launcher.facts.model.families import FAMILIES
from launcher.memory.cards import MEASURED, UNSEEN, spans_of
from launcher.memory.job import Job, counts_plain_kernels
from launcher.memory.ranges import Range, Ranges, Uncertainty
from launcher.memory.stages import answer_length
from launcher.memory.step.recomputation import kept_bytes
from launcher.memory.step.saved import mask_bytes
from launcher.memory.weights.gathering import by_layers
from launcher.memory.weights.parameters import is_expert_target, packed_experts

Shares = tuple[float, float]  # how much less and how much more than predicted may be measured, as shares of what is predicted

# Each row is as wide as 95 to 99 % of the runs on record ask that the row is for; docs/reference/calibration.md counts them by sharding, regime and
# family, and tests/benchmarks/memory/test_calibration.py holds the counts.
DRIVER_ONE, DRIVER_ONE_FUSED, DRIVER_EAGER = (0.09, 0.08), (0.13, 0.04), (0.09, 0.12)
DRIVER_SEVERAL, DRIVER_DEEPSPEED, DRIVER_OFFLOADED = (0.10, 0.13), (0.10, 0.32), (0.05, 0.36)
DRIVER_ANSWERS = (0.05, 0.14)  # of stages that write their answers
HOST_ONE, HOST_ONE_TWO_BITS, HOST_SEVERAL = (0.09, 0.10), (0.03, 0.18), (0.09, 0.10)
HOST_FSDP2, HOST_ANSWERS = (0.09, 0.36), (0.09, 0.83)
HOST_CPUS = (0.16, 0.29)  # memory/cpu.jsonl: every run; -16 % was seen elsewhere too


def ranges_of(job: Job) -> Ranges:
    kind, spans = uncertainty_of(job), spans_of(job)
    less, more = sum(span.less for span in spans), sum(span.more for span in spans)
    below, above = (max(side, UNSEEN) if spans else side for side in (kind.below, kind.above))
    driver, host = driver_shares(job), host_shares(job)
    place = f"{'one or two' if job.split.ranks > 1 else 'one'} {MEASURED}"
    unseen = f"no run was measured on this GPU; {', '.join(span.reason for span in spans)} may differ from those of an {MEASURED}"
    beside = f", and what may differ from an {MEASURED}" if spans else ""
    return Ranges(
        needed=Range(below, above, less + mask_savings(job), more, unseen if spans else kind.source),
        driver=Range(max(driver[0], below), max(driver[1], above), less, more, as_measured(driver, place) + beside),
        host=Range(*host, 0, 0, as_measured(host, place)) if job.gpu else Range(*HOST_CPUS, 0, 0, CPUS),
    )


def mask_savings(job: Job) -> int:
    """Bytes that a batch without padding spares: rows that are all as long need no mask, and attention then repeats no keys (a 1B llama at 4 x 4096
    tokens on H200s: 3.5 GiB, 5 to 6 % of the peak; results/speed/h200x2_scaling.jsonl). Only the data tell whether one comes up."""
    window = job.facts.sliding_window is not None and job.batch.length > job.facts.sliding_window
    if not job.batch.masked or job.batch.samples == 1 or job.run.data.packing or window or job.trace is not None:
        return 0
    full = replace(job, batch=replace(job.batch, masked=False))
    learns = job.census.trained_layers > 0
    return max(kept_bytes(job) - kept_bytes(full), job.layer_saved(learns) - full.layer_saved(learns)) + mask_bytes(job)


def driver_shares(job: Job) -> Shares:
    """Of what nvidia-smi shows. DeepSpeed frees and takes large blocks on streams of its own, which the replay of the allocator does not follow; a
    step of training.kernels=fused reuses more of them than the replay does."""
    run = job.run
    if answer_length(run) and not job.split.weights > 1:
        return DRIVER_ANSWERS
    if job.split.ranks > 1:
        engine = DRIVER_DEEPSPEED if isinstance(run.sharding, Zero) else DRIVER_SEVERAL
        return DRIVER_OFFLOADED if job.split.host_weights else engine
    if run.training.kernels == "fused":
        return DRIVER_ONE_FUSED
    return DRIVER_EAGER if run.training.attention == "eager" else DRIVER_ONE


def host_shares(job: Job) -> Shares:
    """Of the host memory of a node with GPUs."""
    if job.split.ranks > 1 and answer_length(job.run):
        return HOST_ANSWERS
    if job.split.ranks > 1:
        return HOST_FSDP2 if isinstance(job.run.sharding, Fsdp) else HOST_SEVERAL
    return HOST_ONE_TWO_BITS if isinstance(job.run.regime, Qlora) and job.run.regime.bits == 2 else HOST_ONE


def as_measured(shares: Shares, place: str) -> str:
    return f"-{shares[0]:.0%} to +{shares[1]:.0%} as in 95 to 99 % of the runs on {place}"


def uncertainty_of(job: Job) -> Uncertainty:
    """The largest of both sides, over the kinds that the job belongs to, on the card that was measured."""
    found = [row for applies, row in kinds(job) if applies]
    largest = max(found, key=lambda row: row.share)
    return Uncertainty(max(row.below for row in found), max(row.above for row in found), largest.source)


def kinds(job: Job) -> tuple[tuple[bool, Uncertainty], ...]:
    """Each holds 95 to 99 % of the runs on record that it is for, or all of fewer than twenty: what the present formulas say of all runs measured on
    one H200 and on two (benchmarks/results/memory/h200*.jsonl), counted in docs/reference/calibration.md and held by
    tests/benchmarks/memory/test_calibration.py. "Before" is what a set showed that the formulas had not seen."""
    return (*kinds_of_model(job), *kinds_of_training(job), *kinds_of_sharding(job), (not job.gpu, Uncertainty(*HOST_CPUS, CPUS)))


CPUS = f"-{HOST_CPUS[0]:.0%} to +{HOST_CPUS[1]:.0%} as in all runs on CPUs"


def kinds_of_model(job: Job) -> tuple[tuple[bool, Uncertainty], ...]:
    facts = job.facts
    return (
        (
            facts.mixture,
            Uncertainty(0.008, 0.008, "mixtures of experts: 97 % of the runs; before, one of 21 needed 10.6 % more"),
        ),
        (keeps_beside_packed(job), Uncertainty(0.005, 0.025, KEPT_BESIDE_PACKED)),
        (job.trace is not None, Uncertainty(0.01, 0.01, TRACED if job.facts.architecture else TRACED_EXPERTS)),
        (job.trace is not None and job.run.training.attention == "eager", Uncertainty(0.12, 0.015, TRACED_EAGER)),
        (facts.family not in FAMILIES and job.trace is None, Uncertainty(0.15, 0.15, "a family without a table, whose layers were not traced")),
        (facts.family in FAMILIES and not facts.traits.traced, Uncertainty(0.15, 0.15, "a family whose operations were not traced")),
    )


def kinds_of_training(job: Job) -> tuple[tuple[bool, Uncertainty], ...]:
    run, regime = job.run, job.run.regime
    bits = regime.bits if isinstance(regime, Qlora) else 16
    return (
        (True, Uncertainty(0.0035, 0.0035, "one GPU: 98 % of the runs; the others at most 0.9 %")),
        (counts_plain_kernels(job), Uncertainty(0.6, 0.01, FUSED_KERNELS)),
        (run.training.loss == "chunked", Uncertainty(0.0055, 0.0055, "chunked loss: 97 % of the runs; at most 1.3 %")),
        (
            compares_joined(run),
            Uncertainty(0.01, 0.01, COMPARING),
        ),
        (bits == 8 and run.training.loss != "plain", Uncertainty(0.005, 0.03, OUTLIERS)),
        (bits == 8 and job.arithmetic.fused, Uncertainty(0.01, 0.04, "training.kernels=fused on 8-bit layers: two runs, -0.8 and +3.6 %")),
        (bits < 16 and job.facts.layer_norm, Uncertainty(0.01, 0.01, "quantised layers after LayerNorm: five runs, within 0.8 %; before, 3.3 %")),
        (isinstance(regime, Lora) and regime.dora, Uncertainty(0.008, 0.008, "DoRA: all runs, within 1.1 %; before, 4.0 %")),
    )


def keeps_beside_packed(job: Job) -> bool:
    """Without checkpointing, shared experts and dense layers that have no adapter keep more than is counted."""
    packed = job.trace is None and packed_experts(job.run.regime, job.facts) and not job.run.training.gradient_checkpointing
    plain = job.facts.traits.expert_adapters and any(is_expert_target(module) for module in job.facts.linears)
    return bool(packed) and (plain or job.split.ranks > 1)


KEPT_BESIDE_PACKED = "quantised mixtures without checkpointing, with shared experts or several ranks: six runs, -2.6 to +2.2 %"
TRACED_EXPERTS = "layers whose packed experts were traced: no such run was measured since; families with tables, traced alike, are within 1.5 %"
TRACED = "a family without a table, its layers traced: ten such families; before, one run needed 3.5 % more"
TRACED_EAGER = "a family without a table, its layers traced with eager attention: up to 11.3 % less in a traced step of the whole model (xglm)"
COMPARING = "training.kernels=fused in a stage that compares answers: two runs on two GPUs, within 0.2 %"
FUSED_KERNELS = "training.kernels=fused: five runs needed 21 to 55 % less than the plain kernels that are counted"
OUTLIERS = "8-bit layers under small logits: 0 to +2.7 %: bitsandbytes copies the columns of outliers, which only the data tell"


ZERO3 = "ZeRO-3: all runs, within 0.6 %; before, 2.4 % less"
WHOLE_LAYERS = "ZeRO-3 that exchanges whole layers, with checkpointing: two runs without it, within 0.1 %"
SCORED = "a reward model under ZeRO-3: full training is met, adapters needed 11.4 % more in one run (0.13 GiB): not explained"
OFFLOADED_WEIGHTS = "offloaded weights that learn: six runs, 0 to +18.9 % (0.5 GiB): what is whole beside that is not known"


def kinds_of_sharding(job: Job) -> tuple[tuple[bool, Uncertainty], ...]:
    sharding, ranks = job.run.sharding, job.split.ranks
    return (
        (ranks > 1 and job.split.weights == 1, Uncertainty(0.009, 0.004, "DDP, ZeRO-1 and ZeRO-2: all runs but one, which needed 1.0 % less")),
        (
            isinstance(sharding, Zero) and sharding.stage == 3 and ranks > 1,
            Uncertainty(0.009, 0.006, ZERO3),
        ),
        (isinstance(sharding, Zero) and sharding.stage == 3 and ranks > 1 and job.run.stage.name == "rm", Uncertainty(0.009, 0.12, SCORED)),
        (by_layers(job.run) and bool(job.run.training.gradient_checkpointing), Uncertainty(0.02, 0.02, WHOLE_LAYERS)),
        (job.split.host_states, Uncertainty(0.025, 0.012, "offload on two GPUs: all runs, -2.2 to +1.1 %, but those whose offloaded weights learn")),
        (job.split.host_weights and not job.census.adapters, Uncertainty(0.025, 0.19, OFFLOADED_WEIGHTS)),
        (isinstance(sharding, Fsdp) and ranks > 1, Uncertainty(0.009, 0.009, "FSDP2: all runs, -0.1 to +0.8 %; before, +1.7 and -12.2 %")),
        (ranks > 4, Uncertainty(0.03, 0.03, "more than four GPUs: none was measured")),
        (job.run.cluster.nodes > 1, Uncertainty(0.03, 0.03, "several nodes: none was measured")),
    )
